"""The shell script that goes with a network: it builds the engine on the device and times it there."""

from __future__ import annotations

SCRIPT = """\
#!/bin/sh
# Builds a TensorRT engine from the ONNX file beside this script, on the device, and times it.
# Usage: sh model.sh          Results: model.plan, model.log (latency), model.profile.json (time per layer)
# For figures that repeat, first run: sudo nvpmodel -m 0 && sudo jetson_clocks
set -eu
base=${0%.sh}
trtexec=${TRTEXEC:-/usr/src/tensorrt/bin/trtexec}
if ! [ -x "$trtexec" ]; then
    echo "trtexec is not at $trtexec; set TRTEXEC, or install JetPack 4.6 (package libnvinfer-bin)." >&2
    exit 2
fi
"$trtexec" --onnx="$base.onnx" --fp16 --workspace=1024 --saveEngine="$base.plan" > "$base.build.log" 2>&1 || {
    tail -n 20 "$base.build.log" >&2
    exit 1
}
"$trtexec" --loadEngine="$base.plan" --iterations=200 --avgRuns=100 --useSpinWait > "$base.log" 2>&1
"$trtexec" --loadEngine="$base.plan" --iterations=200 --dumpProfile --exportProfile="$base.profile.json" > "$base.profile.log" 2>&1
grep "GPU Compute Time: min" "$base.log"
"""
