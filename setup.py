"""What pyproject.toml cannot say: a wheel has two files beside the package, see tracesvc/control/startup.py."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

BESIDE = {"tracesvc-startup.pth": "tracesvc-startup.pth", "startup.py": "tracesvc_startup.py"}


class WithStartup(build_py):
    """Puts them where every interpreter looks: into the root of what is installed."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for source, target in BESIDE.items():
                self.copy_file(f"tracesvc/control/{source}", str(Path(self.build_lib) / target))

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        beside = [] if self.editable_mode else BESIDE.values()
        return [
            *super().get_outputs(include_bytecode),
            *(str(Path(self.build_lib) / name) for name in beside),
        ]


setup(cmdclass={"build_py": WithStartup})
