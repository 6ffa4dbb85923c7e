"""A run as one HTML file to look at: what it learned, the poses that it finds, how it was measured.

    from ppl_fast.page import write_page

    write_page("page.html", "runs/mine", "footage/")

`template/` holds the page's HTML, CSS and scripts, `collect` what is put into it, as JSON types. Nothing that the file
shows comes from elsewhere, and it asks the network for nothing. Needs the `data` and `viz` extras, for videos `video`.
"""

from ppl_fast.page.document import collect, document, write_page

__all__ = ["collect", "document", "write_page"]
