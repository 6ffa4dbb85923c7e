"""ppl-fast estimate: poses of a folder of images, in pixels."""

from pathlib import Path

from .options import add_compute, check_outputs, command_parser, parse, ready_model

DESCRIPTION = "Estimate the keypoints of every image in a folder, in pixels of the original images."


def main(arguments: list[str]) -> int:
    """Run the command."""
    parser = command_parser("estimate", DESCRIPTION, "RUN IMAGES --out poses.csv [options]")
    parser.add_argument("run", metavar="RUN", type=str, help="run directory, checkpoint or saved model")
    parser.add_argument("images", metavar="IMAGES", type=str, help="folder of images, searched recursively")
    parser.add_argument("--out", type=str, required=True, help="CSV file: one row an image")
    parser.add_argument("--coco", type=str | None, default=None, help="COCO keypoint JSON file to write as well")
    parser.add_argument("--overlay", type=str | None, default=None, metavar="DIR", help="folder for images with poses")
    parser.add_argument("--iterations", type=int, default=1, help="rounds of inference; more fill in occluded parts")
    parser.add_argument("--max-bad-share", type=float, default=0.1, help="share of unreadable images that are skipped")
    add_compute(parser)
    options = parse(parser, arguments)
    if options.iterations < 1:
        raise ValueError(f"--iterations must be at least 1, got {options.iterations}")
    check_outputs(options.out, options.coco, folder=options.overlay)

    from ppl_fast.data import ImageFolder, to_pixels, write_coco, write_csv
    from ppl_fast.evaluation import predict

    model = ready_model(options.run, options)
    size = model.config["image_size"]
    dataset = ImageFolder(options.images, size, max_bad_share=options.max_bad_share)
    print(dataset.report())
    keypoints = predict(
        model, dataset, iterations=options.iterations, batch_size=options.batch_size, workers=options.workers
    )
    keypoints = to_pixels(keypoints, size, dataset.original_sizes)
    write_csv(options.out, dataset.paths, keypoints)
    print(f"wrote {len(dataset)} poses of {model.config['num_keypoints']} keypoints to {options.out}")
    if options.coco:
        write_coco(options.coco, dataset.paths, keypoints, dataset.original_sizes, skeleton=model.links.tolist())
        print(f"wrote {options.coco}")
    if options.overlay:
        _draw_overlays(Path(options.overlay), dataset, keypoints, model)
        print(f"wrote {len(dataset)} overlays to {options.overlay}")
    return 0


def _draw_overlays(folder: Path, dataset, keypoints, model) -> None:
    """One PNG an image, under the image's relative path, suffix included: a.jpg and a.png must not share a name."""
    from PIL import Image, ImageOps
    from tqdm import tqdm

    from ppl_fast.visualization import save_overlay

    links, weights = model.links.cpu(), model.link_weights().detach().cpu()
    for path, points in zip(tqdm(dataset.paths, desc="overlays", unit="image", disable=None), keypoints, strict=True):
        target = folder / f"{path}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(dataset.root / path) as image:
            save_overlay(target, ImageOps.exif_transpose(image).convert("RGB"), points, links, weights)
