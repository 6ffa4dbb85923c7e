"""The page's data: what a run learned, the poses of a source and their plausibility, and how it is written."""

import json
import re

import numpy as np
import pytest
import torch
from page_cases import AUTOLINK, finished_run
from PIL import Image
from tiny import MODEL, fails

from ppl_fast import AutoLink, ExtendedPPL
from ppl_fast.cli import main
from ppl_fast.page import collect, document, write_page
from ppl_fast.page.memory import memory_of, recall
from ppl_fast.page.pictures import Encoder
from ppl_fast.training import load_model
from ppl_fast.visualization import palette


@pytest.fixture(scope="module")
def run(tmp_path_factory, images):
    return finished_run(tmp_path_factory.mktemp("runs") / "mine", images)


@pytest.fixture(scope="module")
def data(run, images):
    return collect(run, images).data


class TestLearned:
    def test_the_models_own_links_colours_and_options(self, run, data):
        model = load_model(run)
        assert (data["name"], data["architecture"], data["step"]) == ("mine", "extended-ppl", 4)
        assert data["links"] == model.links.tolist() and len(data["colours"]) == 6
        np.testing.assert_allclose(data["weights"], model.link_weights().detach(), rtol=1e-3)
        assert tuple(bytes.fromhex(data["colours"][5][1:])) == palette(6)[5]
        assert data["options"]["memory_banks"] == "4" and 0 < data["linksShown"] <= 15

    def test_the_prior_over_training_ends_with_the_models(self, run, data):
        records = [json.loads(line) for line in (run / "prior.jsonl").read_text().splitlines()]
        prior = load_model(run).prior()
        assert data["prior"]["steps"] == sorted({record["step"] for record in records} | {4})
        np.testing.assert_allclose(data["prior"]["points"][0], records[0]["keypoints"], atol=1e-4)
        np.testing.assert_allclose(data["prior"]["points"][-1], prior.keypoints, atol=1e-4)
        assert np.shape(data["prior"]["opacities"]) == (len(data["prior"]["steps"]), 15)

    def test_curves_hold_each_term_and_none_where_it_is_missing(self, run, data):
        assert data["training"]["steps"] == [2, 3, 4] and {"loss", "memory"} <= set(data["training"]["terms"])
        with open(run / "log.jsonl", "a") as log:
            log.write('{"step": 6, "loss": NaN, "losses": {}}\n')
        try:
            terms = collect(run).data["training"]["terms"]
        finally:
            (run / "log.jsonl").write_text("".join((run / "log.jsonl").read_text().splitlines(True)[:-1]))
        assert terms["loss"][-1] is None and terms["memory"][-1] is None and terms["memory"][0] > 0

    def test_evaluations_as_tables_the_latest_first(self, data):
        metrics, older = data["evaluations"]
        assert (metrics["file"], older["file"]) == ("metrics.json", "evaluation.json")
        assert [(score["measure"], score["model"], score["value"]) for score in metrics["scores"]] == [
            ("regression", "PPL", 0.03), ("regression", "AutoLink", 0.05), ("limb share", "PPL", 0.8),
        ]  # fmt: skip
        assert metrics["scores"][0]["joints"] == {"head": 0.01, "hand": None}
        assert metrics["about"][1:] == ["Note: 2 labels name no image."] and older["hidden"] is None

    def test_measures_under_occlusion_are_tables_too(self, data):
        hidden = data["evaluations"][0]["hidden"]["measures"]
        rows = [
            [(row["mask"], row["model"], row["values"], row["recovered"]) for row in measure["rows"]]
            for measure in hidden
        ]
        assert [measure["measure"] for measure in hidden] == ["error, fraction of the image size", "PCK@0.05"]
        assert rows[0] == [
            ("nothing", "PPL", [0.03], None), ("nothing", "AutoLink", [0.05], None),
            ("blocks, 50%", "PPL", [0.09, 0.04, 0.03], 0.9), ("blocks, 50%", "AutoLink", [0.2], None),
        ]  # fmt: skip
        assert rows[1] == [
            ("nothing", "PPL", [0.9], None), ("nothing", "AutoLink", [0.9], None),
            ("blocks, 50%", "PPL", [0.2, 0.7, 0.8], None), ("blocks, 50%", "AutoLink", [0.1], None),
        ]  # fmt: skip

    def test_a_damaged_file_of_metrics_is_named(self, tmp_path, images):
        run = finished_run(tmp_path / "run", images)
        for text, reason in (("{", "JSONDecodeError"), ('{"images": 3}', "TypeError"), ("[]", "AttributeError")):
            (run / "evaluation.json").write_text(text)
            with pytest.raises(ValueError, match=f"evaluation.json is no file of metrics: {reason}"):
                collect(run)


class TestMemory:
    def test_the_data_decode_to_what_the_memory_decodes_to(self, run, data):
        """By the same few operations as the page's script, which the browser's test holds to this too."""
        memory, held = memory_of(load_model(run)), data["memory"]
        codes = torch.tensor([[2, 0, 1, 3]])
        vectors = memory.codebook[torch.arange(4), codes[0]]
        features = np.array(held["banks"]) @ np.array(held["codes"])[range(4), codes[0]] + held["offset"]
        first = memory.decoder[0](memory.from_banks(vectors.mT).mT)
        np.testing.assert_allclose(features, first.detach(), atol=1e-4)
        assert len(held["layers"]) == 1 and np.shape(held["out"]["weight"])[0] == 2
        np.testing.assert_allclose(np.sum(held["shares"], axis=1), 1, atol=1e-3)

    def test_a_pose_that_the_memory_holds_is_at_no_distance(self, run):
        memory = memory_of(load_model(run))
        pose = memory.decode(memory.codebook[:, 0][None]).detach()
        found = recall(memory, pose)
        values = memory.codebook[torch.arange(4), found.codes[0]]
        torch.testing.assert_close(found.keypoints, memory.decode(values[None]).detach())
        torch.testing.assert_close(found.distances, (found.keypoints - pose).norm(dim=2) / 2)
        assert memory(pose, learn=False)[0].detach().allclose(found.keypoints)


class TestPictures:
    def test_poses_are_those_that_estimate_gives(self, run, data, images):
        from ppl_fast.inference import collect as gathered
        from ppl_fast.inference import estimate

        model = load_model(run)
        poses = gathered(estimate(model, images))
        shown = data["poses"]["pictures"]
        assert [picture["name"] for picture in shown] == poses.names
        np.testing.assert_allclose([picture["points"] for picture in shown], poses.keypoints, atol=0.006)
        found = recall(memory_of(model), torch.from_numpy(poses.normalised).float())
        np.testing.assert_allclose([p["measures"]["memory"] for p in shown], found.distances, atol=1e-4)
        assert [picture["codes"] for picture in shown] == found.codes.tolist()
        # In pixels of 40 x 30, as the model's 32 x 32 are stretched to them.
        apart = (np.array([p["recalled"] for p in shown]) - poses.keypoints) * [32 / 40, 32 / 30] / 31
        np.testing.assert_allclose(np.linalg.norm(apart, axis=2), found.distances, atol=1e-3)

    def test_few_of_many_are_spread_evenly(self, run, images):
        some = collect(run, images, frames=4).data["poses"]
        assert [picture["name"] for picture in some["pictures"]] == ["0.png", "3.png", "6.png", "9.png"]
        assert some["clips"] == [{"name": "images", "moving": False, "every": 1, "of": 10}]

    def test_images_and_videos_of_a_folder_are_told_apart(self, run, clips):
        shown = collect(run, clips, frames=13).data["poses"]
        parts = {clip["name"]: (clip["moving"], clip["every"], clip["of"]) for clip in shown["clips"]}
        assert parts == {"images": (False, 1, 14), "clip3.mp4": (True, 2, 7), "far/b.avi": (True, 3, 5)}
        video = [p for p in shown["pictures"] if shown["clips"][p["clip"]]["name"] == "clip3.mp4"]
        assert [picture["frame"] for picture in video] == [0, 2, 4, 6] and video[1]["time"] == pytest.approx(2 / 25)
        assert {tuple(p["size"]) for p in shown["pictures"]} == {(48, 32), (64, 48)}

    def test_pictures_fit_into_their_share_and_stay_alike(self):
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8))
        for share in (200_000, 20_000):
            encode = Encoder(share)
            first, second = encode(noise), encode(noise)
            assert len(first) <= share + 30 and first == second and first.startswith("data:image/jpeg;base64,")
        assert len(Encoder(10)(noise)) > 10  # the last step serves whatever comes

    @pytest.mark.slow
    def test_a_page_of_many_large_pictures_stays_below_ten_megabytes(self, run, tmp_path):
        rng = np.random.default_rng(0)
        (tmp_path / "large").mkdir()
        for i in range(40):
            coarse = Image.fromarray(rng.integers(0, 256, (90, 120, 3), np.uint8))
            coarse.resize((1200, 900)).save(tmp_path / "large" / f"{i}.jpg", quality=95)
        write_page(tmp_path / "page.html", run, tmp_path / "large")
        assert 2e6 < (tmp_path / "page.html").stat().st_size < 10e6


class TestRounds:
    def test_half_of_a_picture_is_hidden_and_filled_in_round_by_round(self, data):
        rounds = data["rounds"]
        assert (rounds["rounds"], rounds["size"], len(rounds["pictures"])) == (4, 32, 6)
        for picture in rounds["pictures"]:
            assert len(picture["passes"]) == 5 and len({each["image"] for each in picture["passes"]}) > 2
            moved = np.linalg.norm(np.array(picture["passes"][0]["points"]) - picture["points"], axis=1).mean() / 31
            assert picture["passes"][0]["moved"] == pytest.approx(moved, abs=1e-3)

    def test_a_model_without_prior_and_memory_has_neither_on_its_page(self, tmp_path, images):
        AutoLink(5, 32, **AUTOLINK).save_pretrained(tmp_path / "run" / "model")
        data = collect(tmp_path / "run", images).data
        assert [data[part] for part in ("prior", "memory", "rounds", "training")] == [None] * 4
        assert data["evaluations"] == [] and data["poses"]["measures"] == []
        assert set(data["poses"]["pictures"][0]) == {
            "name",
            "frame",
            "time",
            "size",
            "points",
            "measures",
            "clip",
            "image",
        }
        assert len(data["links"]) == 10 and data["step"] is None


class TestDocument:
    def test_no_text_of_the_data_ends_its_element(self, data):
        hostile = "</script><script>alert(1)</script><!-- &"
        text = document(data | {"name": hostile})
        assert "<script>alert" not in text and "<!--" not in text
        assert "&lt;/script&gt;&lt;script&gt;alert(1)" in text  # the title
        held = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1]
        assert json.loads(held)["name"] == hostile

    def test_the_policy_lets_run_what_is_in_the_file_alone(self, data):
        import base64
        import hashlib

        text = document(data)
        policy = re.search(r'http-equiv="Content-Security-Policy" content="(.*?)"', text)[1]
        assert policy.startswith("default-src 'none'; img-src data:; ") and "unsafe" not in policy
        for name, element in (("style-src", "style"), ("script-src", "script")):
            content = re.search(rf"<{element}>(.*?)</{element}>", text, re.DOTALL)[1]
            digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
            assert f"{name} 'sha256-{digest}'" in policy
        assert not re.search(r"https?://", text)
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|\son\w+=", text)

    @pytest.mark.parametrize("theme", ["light", "dark"])
    def test_text_stands_out_from_its_ground(self, data, theme):
        style = re.search(r"<style>(.*?)</style>", document(data), re.DOTALL)[1]
        light, dark = (dict(re.findall(r"--([\w-]+): (#\w{6})", part)) for part in style.split("@media", 2)[:2])
        colours = light | (dark if theme == "dark" else {})
        for ink, ground in (
            ("ink", "paper"), ("ink", "panel"), ("ink", "mark"), ("quiet", "paper"), ("quiet", "panel"),
            ("accent", "paper"), ("accent", "panel"), ("on-accent", "accent"),
        ):  # fmt: skip
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
        assert contrast(colours["edge"], colours["paper"]) >= 3  # of buttons


def contrast(*colours):
    """As WCAG 2 has it, 1 to 21."""
    channels = [np.array(list(bytes.fromhex(colour[1:]))) / 255 for colour in colours]
    linear = [np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) for c in channels]
    light, dark = sorted((float(c @ [0.2126, 0.7152, 0.0722]) for c in linear), reverse=True)
    return (light + 0.05) / (dark + 0.05)


class TestCommand:
    def test_it_writes_the_page_and_says_what_is_in_it(self, run, images, tmp_path, capsys):
        (tmp_path / "some").mkdir()
        for name in ("0.png", "1.png"):
            (tmp_path / "some" / name).write_bytes((images / name).read_bytes())
        out = tmp_path / "new" / "page.html"
        assert main(["view", str(run), str(tmp_path / "some"), "--out", str(out)]) == 0
        assert re.search(rf"wrote {out}: 0\.\d MB, 2 pictures", capsys.readouterr().out)
        assert out.read_text().startswith("<!doctype html>")
        assert main(["view", str(run)]) == 0
        assert "wrote" in capsys.readouterr().out and (run / "page.html").is_file()
        (run / "page.html").unlink()

    def test_wrong_input_is_one_sentence_and_leaves_nothing(self, run, images, tmp_path, capsys):
        out = tmp_path / "page.html"
        for arguments, sentence in (
            ([run, "--out", tmp_path / "page.pdf"], "path must end in .html or .htm, got"),
            ([tmp_path, "--out", out], "is no run directory"),
            ([run, tmp_path / "none", "--out", tmp_path / "new" / "page.html"], f"{tmp_path / 'none'} is missing"),
            ([run, tmp_path, "--out", out], "expected images (.jpg"),
            ([run, images, "--out", out, "--frames", "0"], "--frames must be at least 1, got 0"),
            ([run, images, "--out", out, "--iterations", "0"], "--iterations must be at least 1, got 0"),
            ([run, "--out", tmp_path], "must end in .html"),
        ):
            assert sentence in fails(capsys, "view", *arguments)
        assert not list(tmp_path.iterdir())

    def test_a_model_that_does_not_iterate_takes_one_pass(self, tmp_path, images, capsys):
        AutoLink(5, 32, **AUTOLINK).save_pretrained(tmp_path / "run")
        arguments = ("view", tmp_path / "run", images, "--iterations", "2", "--out", tmp_path / "page.html")
        assert "iterations must be 1" in fails(capsys, *arguments)
        assert not (tmp_path / "page.html").exists()

    def test_a_saved_model_that_no_log_tells_of(self, tmp_path):
        ExtendedPPL(**MODEL).save_pretrained(tmp_path / "saved")
        data = collect(tmp_path / "saved").data
        assert data["prior"]["steps"] == [None] and data["training"] is None and data["poses"] is None
