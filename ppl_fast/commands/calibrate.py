"""ppl-fast calibrate: from labelled images, how sure a model may be of its keypoints."""

from dataclasses import replace

from ppl_fast._extras import needing
from ppl_fast.commands.footage import add_crop, add_labels, framing_for, open_labelled
from ppl_fast.commands.options import (
    add_compute,
    add_run,
    check_outputs,
    command_parser,
    own_folder,
    parse,
    ready_model,
)

DESCRIPTION = """Learn from labelled images what the model's evidence is worth: `estimate --confidence` then gives an
expected error in pixels and a likelihood. Kept as confidence.json beside the model's weights."""


def main(arguments: list[str]) -> int:
    """Run the command."""
    parser = command_parser("calibrate", DESCRIPTION, "RUN IMAGES [--labels FILE] [options]")
    add_run(parser, anywhere=False)
    parser.add_argument("images", metavar="IMAGES", type=str, help="folder of images, at least 20 of them labelled")
    add_labels(parser)
    add_crop(parser)
    add_compute(parser)
    options = parse(parser, arguments)
    own_folder("calibrate", options.run)

    with needing("ppl-fast calibrate needs", "data"):
        from ppl_fast.evaluation import calibrate
    from ppl_fast.inference.confidence import WITHIN
    from ppl_fast.models.checkpoint import CALIBRATION, digest_of_weights
    from ppl_fast.training.run import find_model

    model = ready_model(options.run, options)
    beside = find_model(options.run)
    check_outputs(folder=str(beside))
    opened = open_labelled("calibrate", options.images, model.config["image_size"], options, framing_for(options))
    assert opened.labels is not None
    counts = {"batch_size": options.batch_size, "max_missing_share": options.max_missing_share}
    found = calibrate(model, opened.dataset, opened.labels, **counts)
    replace(found, model=digest_of_weights(beside)).save(beside / CALIBRATION)
    print(f"of {found.frames} labelled images, each half judged by what the other half taught:")
    for kind, what in (("whole", "whole"), ("told", "half hidden, told"), ("hidden", "half hidden, not told")):
        each = found.held_out[kind]
        print(
            f"  {what}: error {each['error']:.4f} of the side, expected {each['expected']:.4f}; the surer half of the "
            f"keypoints {each['sure']:.4f}, the rest {each['rest']:.4f}; within {WITHIN:g}: {each['within']:.2f}, "
            f"likelihood {each['likelihood']:.2f}"
        )
    print(f"wrote {beside / CALIBRATION}")
    return 0
