# SPDX-License-Identifier: Apache-2.0
"""The page of an inspection: what it counts, what it shows first, what it escapes."""

import re

from mmdisco_jax.export.preflight_page import PreflightFile, preflight_html

EVIL = '"><script>alert(1)</script>{{counts}}'


def page(count: int = 3, **options) -> str:
    fine = [
        PreflightFile(
            name=f"fine_{i}.mp4",
            problem="",
            reason="",
            action="keep",
            num_clips=4,
            facts=("1.0 MB",),
            thumbnail="QUJD",
        )
        for i in range(count)
    ]
    bad = PreflightFile(
        name=EVIL, problem="odd_rate", reason=EVIL, action="skip", num_clips=0, facts=(EVIL,)
    )
    counts = {"fine": count, "corrupt": 0, "odd_rate": 1}
    meanings = {"fine": "good", "corrupt": "damaged", "odd_rate": "slow"}
    return preflight_html("4 inputs", counts, meanings, [*fine, bad], **options)


def test_problems_come_first_and_are_counted():
    html = page()
    names = re.findall(r"<h3>(.*?)</h3>", html)
    assert len(names) == 4 and names[1:] == ["fine_0.mp4", "fine_1.mp4", "fine_2.mp4"]
    assert "<dt>odd rate</dt><dd><strong>1</strong> slow" in html
    assert "damaged" not in html  # no file has that problem
    assert html.count("data:image/jpeg;base64,QUJD") == 3
    assert "keep, 4 clips" in html and "more files" not in html


def test_text_is_escaped_and_fields_are_filled_once():
    html = page()
    assert "<script>" not in html
    assert html.count("&lt;script&gt;") == 3
    assert html.count("{{counts}}") == 3  # as text, where a name holds it


def test_a_long_list_says_what_it_leaves_out():
    html = page(10, limit=4)
    assert len(re.findall("<h3>", html)) == 4
    assert "7 more files are in the JSON report." in html
