"""A headless chromium with the viewer's page in it."""

import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CONTROLS = 350  # pixels at the right that the controls cover
NOTES = 290  # pixels at the top that notes cover
SIZE = (900, 800)  # of the window

_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--force-device-scale-factor=1",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
)
_WAIT = 60  # seconds at most for what should take a moment


def require_browser() -> None:
    """Skip the test where there is no viser, selenium, chromium or chromedriver."""
    pytest.importorskip("viser", reason="needs viser: pip install 'msth_taichi[viewer]'")
    pytest.importorskip("selenium", reason="needs selenium: pip install 'msth_taichi[test]'")
    for program in ("chromium", "chromedriver"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}: apt-get install chromium chromium-driver")


class Page:
    """The viewer in a browser of its own.

    Args:
        address: of the viewer.
        folder: for the browser's profile and its downloads.
    """

    def __init__(self, address: str, folder: Path):
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        self.downloads = folder / "downloads"
        self.downloads.mkdir(parents=True)
        options = webdriver.ChromeOptions()
        for flag in (*_FLAGS, f"--user-data-dir={folder / 'profile'}", f"--window-size={SIZE[0]},{SIZE[1]}"):
            options.add_argument(flag)
        options.add_experimental_option("prefs", {"download.default_directory": str(self.downloads)})
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        self.driver.get(address)
        self.wait_for(lambda: self.find("//button[normalize-space()='Screenshot']"))

    def close(self) -> None:
        self.driver.quit()

    def wait_for(self, condition):
        """What `condition` returns, as soon as that is something."""
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.wait import WebDriverWait

        waiting = WebDriverWait(self.driver, _WAIT, 0.1, [StaleElementReferenceException])
        return waiting.until(lambda _: condition())

    def find(self, path: str):
        """All elements of an XPath."""
        return self.driver.find_elements("xpath", path)

    def control(self, label: str, kind: str):
        """The input that belongs to a label."""
        return self.wait_for(lambda: self.find(f"//*[text()='{label}']/following::input[@type='{kind}']"))[0]

    def type(self, label: str, value: object) -> None:
        """Write a value into the field of a control."""
        from selenium.webdriver.common.keys import Keys

        self.control(label, "text").send_keys(Keys.CONTROL, "a", Keys.NULL, str(value), Keys.ENTER)

    def choose(self, value: str) -> None:
        """Choose from a list, by what no other list has."""
        option = f"//*[@role='option' and @value='{value}']"
        self.driver.execute_script("arguments[0].click()", self.wait_for(lambda: self.find(option))[0])

    def tick(self, label: str) -> None:
        """Click on a checkbox."""
        self.driver.execute_script("arguments[0].click()", self.control(label, "checkbox"))

    def press(self, text: str) -> None:
        """Click on a button."""
        self.find(f"//button[normalize-space()='{text}']")[0].click()

    def tab(self, name: str) -> None:
        """Open a tab of the controls."""
        self.find(f"//*[@role='tab' and normalize-space()='{name}']")[0].click()

    def drag(self, right: int, down: int) -> None:
        """Drag the picture by so many pixels."""
        from selenium.webdriver import ActionChains

        chain = ActionChains(self.driver).move_to_element_with_offset(self.find("//canvas")[0], -250, 100)
        chain.click_and_hold().move_by_offset(right // 2, down // 2).move_by_offset(right // 2, down // 2)
        chain.release().perform()

    def screen(self) -> np.ndarray:
        """(H, W, 3) uint8 what is seen beside controls and notes."""
        return self.beside(Image.open(io.BytesIO(self.driver.get_screenshot_as_png())).convert("RGB"))

    def beside(self, image: Image.Image) -> np.ndarray:
        """(H, W, 3) uint8 of a picture of the whole page, what neither controls nor notes cover."""
        return np.array(image.resize(self.size(), Image.Resampling.BILINEAR))[NOTES:, :-CONTROLS]

    def size(self) -> tuple[int, int]:
        """Width and height of all that is seen, pixels."""
        width, height = self.driver.execute_script("return [window.innerWidth, window.innerHeight]")
        return width, height

    def status(self) -> str:
        """What the viewer says of the picture."""
        return next((x.text for x in self.find("//p[contains(text(), ' x ')]")), "")

    def sharp(self) -> np.ndarray:
        """`screen`, as soon as the picture is sharp and stays as it is."""
        seen = [None, None]

        def settled():
            seen.append(self.screen() if re.fullmatch(r"\d+ x \d+", self.status()) else None)
            last = seen[-3:]
            return all(x is not None for x in last) and all(np.array_equal(last[0], x) for x in last[1:])

        self.wait_for(settled)
        return seen[-1]

    def errors(self) -> list[str]:
        """What went wrong, by the browser's console."""
        return [line["message"] for line in self.driver.get_log("browser") if line["level"] == "SEVERE"]
