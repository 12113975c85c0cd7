"""A session that ends while somebody is at work: nothing on the page and nothing typed is lost."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.browser.conftest import Site, web_process
from tests.browser.test_live import HIDDEN

TOKEN = "correct-horse"


def log_in(page: Page, url: str) -> None:
    page.goto(f"{url}/login")
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Overview")


def test_work_goes_on_after_a_login_in_another_tab(
    new_page: Callable[..., Page], site: Site
) -> None:
    page = new_page(may_complain=True)  # Chromium calls an answer of 401 an error.
    with web_process(site.settings.data_dir, CALIBRANT_TOKEN=TOKEN) as url:
        log_in(page, url)
        page.goto(f"{url}/jobs/{site.seeded.jobs['succeeded']}/coverage")
        expect(page.locator("[data-chart]")).to_have_attribute("data-state", "drawn")
        page.context.clear_cookies()
        page.get_by_label("Scale").select_option("log")
        expect(page.get_by_role("alert")).to_contain_text("log in")
        expect(page.get_by_label("Scale")).to_have_value("log")

        log_in(page, url)
        page.goto(f"{url}/sets/new")
        page.get_by_label("Name", exact=True).first.fill("An hour of work")
        page.context.clear_cookies()
        form = page.locator("#composer .form")
        left = form.evaluate("form => form.getBoundingClientRect().left")
        page.get_by_role("button", name="Add a slice").click()
        expect(page.locator("#composer > [data-refused]")).to_contain_text("log in")
        assert form.evaluate("form => form.getBoundingClientRect().left") == left
        page.get_by_role("button", name="Save the set").last.click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Login needed")
        with page.expect_popup() as opened:
            page.get_by_role("link", name="Log in in another tab").click()
        opened.value.get_by_label("Token").fill(TOKEN)
        opened.value.get_by_role("button", name="Log in").click()
        expect(opened.value.get_by_role("heading", level=1)).to_have_text("Overview")
        page.reload()
        expect(page.get_by_role("heading", level=1)).to_have_text("An hour of work")


def test_a_live_page_goes_on_after_a_login_in_another_tab(
    new_page: Callable[..., Page], site: Site
) -> None:
    page = new_page(may_complain=True)
    job_id = site.seeded.jobs["running"]
    log, note = page.locator(".log"), page.locator("[data-connection=login]")
    with web_process(site.settings.data_dir, CALIBRANT_TOKEN=TOKEN) as url:
        log_in(page, url)
        page.goto(f"{url}/jobs/{job_id}")
        expect(log).to_contain_text("INFO")
        page.context.clear_cookies()
        expect(note).to_be_visible()
        expect(log).to_contain_text("INFO")
        with page.expect_popup() as opened:
            note.get_by_role("link", name="Log in in another tab").click()
        opened.value.get_by_label("Token").fill(TOKEN)
        opened.value.get_by_role("button", name="Log in").click()
        with (site.settings.jobs_dir / job_id / "log.txt").open("a") as file:
            file.write("said after the login\n")
        expect(log).to_contain_text("said after the login")
        expect(note).to_be_hidden()


def test_a_page_that_was_never_seen_keeps_what_it_has_when_the_login_ended(
    new_page: Callable[..., Page], site: Site
) -> None:
    page = new_page(may_complain=True)
    look = "isSeen = true; document.dispatchEvent(new Event('visibilitychange'))"
    with web_process(site.settings.data_dir, CALIBRANT_TOKEN=TOKEN) as url:
        log_in(page, url)
        page.add_init_script(HIDDEN)
        page.goto(f"{url}/jobs/{site.seeded.jobs['running']}")
        page.wait_for_selector("html[data-htmx]")
        page.wait_for_timeout(300)  # A stream is asked for as soon as htmx is there.
        page.context.clear_cookies()
        with page.expect_response("**/events") as answer:
            page.evaluate(look)
        assert answer.value.status == 401
        expect(page.locator("[data-connection=login]")).to_be_visible()
        expect(page.locator("#live")).to_contain_text("3 of 6 layers")
        log_in(page.context.new_page(), url)
        with page.expect_response("**/events") as answer:
            page.evaluate(look)
        assert answer.value.status == 200
        expect(page.locator("[data-connection=login]")).to_be_hidden()
