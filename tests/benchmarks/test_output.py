"""Rows of benchmarks reach their files whole."""

import json

from benchmarks.output import Output


def rows_as_text(rows):
    return " ".join(f"{row['name']}={row['value']}" for row in rows)


def test_rows_are_replaced_by_key_and_others_stay(tmp_path):
    path = tmp_path / "results.json"
    for name, value in [("a", 1), ("b", 2), ("a", 3)]:
        output = Output("demo", rows_as_text, path)
        output.add({"name": name, "value": value}, key=("name",))
    document = json.loads(path.read_text())
    assert document["benchmark"] == "demo"
    assert [(row["name"], row["value"]) for row in document["rows"]] == [("a", 3), ("b", 2)]
    assert document["machine"]["torch"] == document["rows"][0]["machine"]["torch"]


def test_markdown_names_the_machine(tmp_path):
    output = Output("demo", rows_as_text, markdown_path=tmp_path / "results.md")
    output.add({"name": "a", "value": 1}, key=("name",))
    text = (tmp_path / "results.md").read_text()
    assert text.startswith("a=1\n")
    assert f"torch {output.rows[0]['machine']['torch']}" in text
    assert [p.name for p in tmp_path.iterdir()] == ["results.md"]  # nothing half-written
