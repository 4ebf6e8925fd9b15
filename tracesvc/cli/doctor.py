"""``tracesvc doctor``: which parts of it run here, why not the others, and what to do about it."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import click

__all__ = ["command"]


class Finding(NamedTuple):
    """One part of the recorder."""

    part: str
    runs: bool
    what: str
    advice: str = ""


def examine() -> list[Finding]:
    """Look at this interpreter, this trio and what was built."""
    import trio

    from tracesvc.format import native as codec
    from tracesvc.format import zstd
    from tracesvc.recorder import direct
    from tracesvc.recorder.native import native, no_lock, why_not
    from tracesvc.recorder.seams import SEAMS

    python = f"{sys.implementation.name} {sys.version.split()[0]}, trio {trio.__version__}"
    refused = no_lock()
    obstacle = direct.why_not(native is not None)
    missing = [f"{module.__name__}.{name}" for module, name in SEAMS if not hasattr(module, name)]
    return [
        Finding("python", not refused, f"{python}: {refused}" if refused else python),
        Finding(
            "native recorder",
            native is not None,
            "records and encodes" if native is not None else why_not,
            "" if native is not None else "the twin in Python does the same work, slower",
        ),
        Finding(
            "native codec",
            not codec.why_not,
            codec.why_not or "decodes and checks",
            "NumPy and Python do the same work, slower" if codec.why_not else "",
        ),
        Finding(
            "direct way into trio",
            not obstacle,
            obstacle or "taken: its self-test agrees with trio's own instruments",
            "the public way is taken; a newer tracesvc may know this trio" if obstacle else "",
        ),
        Finding(
            "runs and threads that begin later",
            not missing,
            f"this trio has no {', '.join(missing)}" if missing else "seen",
            "runs: open the tracer inside each; thread calls are not recorded" if missing else "",
        ),
        Finding(
            "compression",
            zstd.available(),
            "zstd" if zstd.available() else "there is no zstd",
            "" if zstd.available() else "pip install 'tracesvc[push]'",
        ),
    ]


@click.command(name="doctor", short_help="Which parts of the recorder run here, and why.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(as_json: bool) -> None:
    """Say which parts of the recorder run here, why not the others, and what to do.

    Exit code 0 if all of them run.
    """
    findings = examine()
    if as_json:
        import json

        rows: list[dict[str, Any]] = [finding._asdict() for finding in findings]
        click.echo(json.dumps(rows, indent=2))
    else:
        for finding in findings:
            click.echo(f"{'yes' if finding.runs else 'no ':3}  {finding.part}: {finding.what}")
            if finding.advice:
                click.echo(f"     {finding.advice}")
    if not all(finding.runs for finding in findings):
        raise SystemExit(1)
