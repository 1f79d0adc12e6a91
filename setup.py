"""Packaging of tfq. The command mains live in tools/ and are installed as the package `tfq_tools`, the host side
of android_bench/ as `tfq_bench`."""

import re
from pathlib import Path

from setuptools import find_packages, setup

_RAY, _DASK = ["ray[client]>=2.40,<3"], ["distributed>=2025.1"]
HERE = Path(__file__).parent
# Read, not imported: the packages it would pull in may not be installed yet.
VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / "tfq" / "__init__.py").read_text(encoding="utf-8"), re.MULTILINE)

setup(
    name="tfq",
    version=VERSION[1],
    description="From a Keras model to the smallest, fastest .tflite that keeps the accuracy, with the proof",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    keywords="quantization tflite litert keras int8 mixed-precision post-training",
    packages=[*find_packages(include=["tfq", "tfq.*"]), "tfq_bench", "tfq_bench.runner", "tfq_tools"],
    package_dir={
        "tfq_bench": "android_bench/host",
        # no Python: the sources that tfq-bench builds its runner from
        "tfq_bench.runner": "android_bench/runner",
        "tfq_tools": "tools",
    },
    package_data={
        "tfq": ["py.typed", "report/templates/*"],
        "tfq_bench.runner": ["*.cc", "*.h", "*.cmake", "CMakeLists.txt", "FORMAT.md", "testing/runner_test.cc"],
    },
    python_requires=">=3.10,<3.14",
    install_requires=[
        "absl-py>=1.0",
        "ai-edge-litert>=2.0,<3",
        "flatbuffers>=24.3",
        "h5py>=3.10",
        "highspy>=1.7,<2",
        "jinja2>=3.1,<4",
        "keras>=3.5,<4",
        "markupsafe>=2",
        "matplotlib>=3.8,<4",
        "numpy>=1.26,<3",
        "pillow>=10",
        "pulp>=3.3,<4",
        "scipy>=1.15,<2",
        "tensorflow>=2.18,<2.22",
        "tensorflow-model-optimization>=0.8,<0.9",
        "tf_keras>=2.18,<2.22",
        "threadpoolctl>=3",
        "typing_extensions>=4.1",
    ],
    extras_require={
        # the peer in benchmarks/reconstruction.py that TensorFlow does not bring along
        "benchmark": ["ai-edge-quantizer>=0.10,<0.11"],
        # other machines (docs/fleets.md)
        "ray": _RAY,
        "dask": _DASK,
        # settings and figures of runs beside each other
        "mlflow": ["mlflow-skinny>=2.10"],
        # makes demo/ anew; running the demo does not need it
        "demo": ["scikit-learn>=1.4,<2"],
        "dev": [
            *_RAY,
            *_DASK,
            "axe-core-python>=0.1",
            "hypothesis>=6.100",
            "ipykernel>=6",
            "mypy>=1.10",
            "nbclient>=0.10",
            # the average precision that ours is compared with
            "pycocotools>=2.0.8",
            "pytest>=8",
            "pytest-xdist>=3.5",
            # reads the front matter of model cards
            "pyyaml>=6",
            "ruff>=0.6",
        ],
        # TFLite Micro's interpreter, which the tests of its table ask; it has pre-releases alone
        "micro": ["tflite-micro>=0.dev20260101"],
        # docs/ as a site (mkdocs.yml)
        "docs": ["mkdocs>=1.6,<2", "mkdocs-jupyter>=0.25", "mkdocstrings[python]>=0.27"],
    },
    entry_points={
        "console_scripts": [
            "tfq=tfq_tools.tfq:run",
            "tfq-quantize=tfq_tools.quantize:run",
            "tfq-batch=tfq_tools.batch:run",
            "tfq-evaluate=tfq_tools.evaluate:run",
            "tfq-inspect=tfq_tools.inspect:run",
            "tfq-frontier=tfq_tools.frontier:run",
            "tfq-profile=tfq_tools.profile:run",
            "tfq-bench=tfq_tools.bench:run",
            "tfq-report=tfq_tools.report:run",
        ]
    },
)
