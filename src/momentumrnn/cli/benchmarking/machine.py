"""What the numbers were measured on."""

import datetime
import os
import platform
import subprocess
import sys
from pathlib import Path

import torch

import momentumrnn
from momentumrnn.cli.benchmarking.instruction_sets import describe_instruction_sets


def describe_machine(device: str) -> dict[str, str]:
    """Machine, versions and settings, each under its name.

    Args:
        device: Where was measured.
    """
    told = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": processor(),
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "instruction set": describe_instruction_sets(),
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "momentumrnn": momentumrnn.__version__,
    }
    if device == "cuda":
        told["GPU"] = torch.cuda.get_device_name()
    if hasattr(os, "getloadavg"):
        told["load before the start"] = f"{os.getloadavg()[0]:.2f} (mean of one minute)"
    return told


def processor() -> str:
    """The processor's name."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.stdout.strip():
            return done.stdout.strip()
    return platform.processor() or platform.machine()
