"""A rater's page, from a file, in a real Chromium without a network: rated, left, taken up, saved, analysed."""
import json
import os
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from contemplative_cai.core.schema import InputError
from contemplative_cai.review.experts_analysis import analyse_ratings, analyse_study
from contemplative_cai.review.experts_collect import ExpertRating, collect_study
from contemplative_cai.review.experts_page import pack_study
from contemplative_cai.review.experts_plan import ExpertItem, StudyShape, make_experts_plan, write_experts_plan
from contemplative_cai.review.experts_simulated import SimulatedExperts, simulated_files

CHROMIUM = shutil.which("chromium")
HOSTILE = '<img src=x onerror="window.ran=true"> </script><script>window.ran=true</script> Ask \u202e& listen.'
PICTURES = os.environ.get("CCAI_PICTURES")  # a folder to look at what was shown

pytestmark = [pytest.mark.long, pytest.mark.skipif(
    CHROMIUM is None and os.environ.get("CCAI_BROWSER") != "required",
    reason="no chromium on PATH (CCAI_BROWSER=required makes this a failure)")]


def study(folder: Path):
    "A small study, packed."
    items = [ExpertItem(id=f"i{2 * i + k:02d}", arm=arm, prompt_id=f"q{i}", question=f"Question {i}? {HOSTILE}",
                        answer=f"Answer {i}{k}. {HOSTILE}\n\n" + "More of it. " * 80, hazard="ssh" if i == 0 else "")
             for i in range(6) for k, arm in enumerate(("secret-arm-one", "secret-arm-two"))]
    plan = make_experts_plan("demo", items, ("secret-arm-one", "secret-arm-two"),
                             StudyShape({"practice": ["ann", "bo"], "safety": ["cy", "di"]}, readers=2))
    write_experts_plan(plan, folder)
    pack_study(plan, folder)
    return plan


@pytest.fixture
def context(tmp_path):
    "A browser without a network, and what it asked for."
    assert CHROMIUM, "CCAI_BROWSER=required, and there is no chromium on PATH"
    expect.set_options(timeout=30_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"],
                                             env=os.environ | {"HOME": str(tmp_path)})
        context = browser.new_context(offline=True, viewport={"width": 1280, "height": 720}, accept_downloads=True)
        context.set_default_timeout(60_000)
        try: yield context
        finally: browser.close()


def picture(page, name, scheme="light"):
    if PICTURES:
        page.emulate_media(color_scheme=scheme)
        page.screenshot(path=Path(PICTURES) / f"{name}-{scheme}.png")


def rate_all(page, grade):
    for _ in range(6): page.keyboard.press(str(grade))


def save(page, folder):
    with page.expect_download() as download: page.keyboard.press("s")
    place = folder / download.value.suggested_filename
    download.value.save_as(place)
    return place


def test_a_rater_rates_from_a_file_leaves_goes_on_saves_and_is_analysed(context, tmp_path):
    plan, asked, errors = study(tmp_path / "study"), [], []
    mine = next(one for one in plan.raters if one.name == "ann").items
    html = tmp_path / "study" / "packs" / "ann" / "rate.html"
    page = context.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: message.type == "error" and errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(html.as_uri())
    root = page.locator("#study")
    place, count = page.locator("[data-name=place]"), page.locator("[data-name=count]")
    expect(root).to_contain_text("How to rate")
    for scheme in ("light", "dark"): picture(page, "start", scheme)
    page.get_by_role("button", name="I agree, and begin").click()

    expect(place).to_have_text("practice 1 of 4")
    rate_all(page, 2)
    page.keyboard.press("n")
    expect(root).to_contain_text("How it was meant")
    for scheme in ("light", "dark"): picture(page, "practice", scheme)
    for _ in range(3):
        page.keyboard.press("n")
        rate_all(page, 3)
        page.keyboard.press("n")
    page.keyboard.press("n")
    expect(place).to_have_text(f"answer 1 of {len(mine)}")

    for number, id in enumerate(mine):
        expect(place).to_have_text(f"answer {number + 1} of {len(mine)}")
        if id in ("i00", "i01"):  # a distressing matter
            expect(root).to_contain_text("Covered")
            assert "Answer 0" not in root.inner_text()
            picture(page, "covered")
            page.keyboard.press("4")
            page.keyboard.press("x")
        expect(root).to_contain_text("\\u202e")
        rate_all(page, 5 if number % 2 else 0)
        if number == 1:
            page.keyboard.press("m")
            page.keyboard.type("5 n s a note")
            page.keyboard.press("Escape")
        if number == 3:
            for scheme in ("light", "dark"): picture(page, "rating", scheme)
            page.reload()  # what was said is there
            expect(count).to_have_text(f"4 of {len(mine)} rated")
            page.keyboard.press("n")
            expect(place).to_have_text(f"answer 5 of {len(mine)}")
            continue
        page.keyboard.press("n")
    expect(root).to_contain_text("All answers are rated")
    picture(page, "end")
    saved = save(page, tmp_path)

    other = context.new_page()  # another window changes one answer, and this one hears of it
    other.goto(html.as_uri())
    expect(other.locator("[data-name=count]")).to_have_text("12 of 12 rated")
    other.keyboard.press("n")
    expect(other.locator("#study")).to_contain_text("All answers are rated")
    other.keyboard.press("p")
    expect(other.locator("[data-name=place]")).to_have_text("answer 1 of 12")
    other.locator("fieldset").nth(0).get_by_text("2", exact=True).click()
    for _ in range(300):  # one window's storage reaches the other a little later
        items = page.evaluate("JSON.parse(Object.values(localStorage)[0]).items")
        if items[mine[0]]["ratings"]["overall"] == 2: break
        page.wait_for_timeout(100)
    second = save(page, tmp_path / "later")
    assert page.evaluate("window.ran") is None and root.locator("img").count() == 0
    assert errors == [] and all(url.startswith(("file:", "blob:", "data:")) for url in asked), (errors, asked)
    assert all("secret-arm" not in path.read_text() for path in html.parent.iterdir())

    lines = [json.loads(line) for line in saved.read_text(encoding="utf-8").splitlines()]
    rated = {row["item"]: row for row in lines if row["kind"] == "rating"}
    assert (lines[0]["lines"], sum(row["kind"] == "practice" for row in lines)) == (16, 4)
    assert rated[mine[1]]["note"] == "5 n s a note" and set(rated[mine[0]]["ratings"].values()) == {None}
    assert set(rated[mine[1]]["ratings"].values()) == {5} and rated[mine[1]]["seconds"] >= 0
    for name, content in simulated_files(plan, SimulatedExperts()).items():
        if "ann" not in name: (tmp_path / name).write_bytes(content)
    collected = collect_study(plan, tmp_path / "study", [saved, second, *tmp_path.glob("demo-[bcd]*.jsonl")])
    assert [note.words for note in collected.notes if note.fault != "doubled"] == []
    assert collected.rated == {name: (12, 12) for name in ("ann", "bo", "cy", "di")}
    kept = [ExpertRating.model_validate_json(line)
            for line in (tmp_path / "study" / "ratings.jsonl").read_text().splitlines()]
    assert next(one for one in kept if (one.rater, one.item) == ("ann", mine[0])).ratings["overall"] == 2
    assert not any(one.edited or one.late for one in kept)
    with pytest.raises(InputError, match="36 of 48 ratings are of simulated raters"):
        analyse_study(plan, tmp_path / "study")
    assert analyse_ratings(plan, [one.model_copy(update={"session": "a person's"}) for one in kept]).ratings == 48
    taken = context.new_page()  # another computer: what was saved is read again
    taken.goto((tmp_path / "study" / "packs" / "ann" / "rate.html").as_uri())
    taken.evaluate("localStorage.clear()")
    taken.reload()
    taken.locator("input[type=file]").set_input_files(saved)
    expect(taken.locator("[data-name=count]")).to_have_text("12 of 12 rated")
    taken.locator("input[type=file]").set_input_files(tmp_path / "demo-bo.jsonl")
    expect(taken.locator("[data-name=told]")).to_contain_text("of another study or rater")
