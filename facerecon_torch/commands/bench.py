"""`facerecon bench`: the benchmarks of an installed package, or of a checkout."""

import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ["benchmark_package", "run_bench"]

_HELP = """usage: facerecon bench [NAME ...] [key=value ...]

Measures speed, memory and error of the public functions, beside their rivals, and prints CPU | CUDA | ratio.

names (default: all of them):
  model     vertices and landmarks of the face model
  fit       camera (Eq. 6) and landmark fit (Eq. 7), contour fixed and marching
  hog       HOG of 66 landmarks: dense maps, gathers, scikit-image, OpenCV, dlib
  ridge     a stage's regression: primal, dual, one penalty, one chosen among 17; scikit-learn
  stage     a whole stage from row chunks: memory flat in N
  cascade   training from given crops: one fold, all folds
  infer     photographs in, results out: JPEG and PNG, one face and many
  register  synthetic scans
  agree     CPU against CUDA, float32 against float64, two runs against each other

keys:
  device=cpu         cpu | cuda | cpu,cuda (a device that is not there is "not measured")
  dtype=float32      float32 | float64
  sizes=small        tiny | quick | small | full
  rounds=9           of the cases that take turns
  threads=N          of torch (default: its own choice)
  minutes=M          leave out what no longer fits
  output=DIR         results as JSON and plots as PNG (default: benchmarks/results of a checkout, else
                     ./benchmarks_results); output=none writes nothing
  plots=true         scaling plots; need matplotlib
  guard=off          check: compare ratios with the record, exit 1 if one fell | record: write it anew
  guard_file=FILE    the record (default: guard.json beside the results of a checkout)
  guard_runs=5       whole runs that a record is made of
  any size of a bench, for example  facerecon bench stage n=51000 d=8316   or   facerecon bench hog batch=1,8,64

Exit status: 0 done, 1 a case failed, answered wrongly or fell behind the record, 2 the call was wrong.
Everything on a GPU machine in ten minutes: facerecon bench device=cpu,cuda sizes=full minutes=9
"""


def benchmark_package() -> str:
    """The importable name of the benchmarks. Raises FileNotFoundError if they are missing."""
    package = Path(__file__).resolve().parents[1]
    if (package / "benchmarks" / "suite.py").is_file():
        return f"{package.name}.benchmarks"
    root = package.parent
    if not (root / "benchmarks" / "suite.py").is_file():
        raise FileNotFoundError(f"the benchmarks are missing; looked for suite.py in {package / 'benchmarks'}")
    if sys.path[0] != str(root):  # first: some wheels bring a package of this name
        sys.path.insert(0, str(root))  # the processes that a bench starts look there, too
    return "benchmarks"


def run_bench(arguments: Sequence[str]) -> int:
    """The status of `facerecon bench`."""
    if any(word in ("-h", "--help", "help") for word in arguments):
        sys.stdout.write(_HELP)
        return 0
    main: Callable[[Sequence[str]], int] = importlib.import_module(f"{benchmark_package()}.suite").main
    return main(arguments)
