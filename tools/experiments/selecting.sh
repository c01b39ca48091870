#!/usr/bin/env bash
# Tables 4.2 and 4.3 on photographs: six shared configurations of three methods, chosen by five annotators, and the
# noise that the choice of epochs tolerates. Called again, it goes on where it stopped. Run it where README.md's first
# line put the sets and the folder "weights".
# usage: selecting.sh SET          selecting.sh cub10
set -eu
set=$1
recipes=$(realpath "$(dirname "$0")")/selecting
place=("dataset=$set.yaml" store=labels)

boxes() { # KEY=VALUE ... -> key of val_boxes
    wsolpipe run stage=val_boxes split=val "${place[@]}" "$@" --json |
        python -c 'import json, sys; print(*(s["key"] for s in json.load(sys.stdin)["stages"] if s["stage"] == "val_boxes"))'
}
rpn=$(boxes val_boxes.annotator=rpn regions.method=onnx regions.weights=weights/yolox_nano_coco.onnx)
ss=$(boxes val_boxes.annotator=ss regions.top_n=100)
for method in cam has cutmix; do
    wsoltrain search recipe="$recipes/$method.yaml" "${place[@]}" shared=6 workers=0 test=test outcomes=true \
        by="gt,ss:val_boxes@$ss,rpn:val_boxes@$rpn,noisy:20,cls" out="searches/$set/$method"
done
runs=searches/$set/cam,searches/$set/has,searches/$set/cutmix
wsolpipe eval runs="$runs"
wsolpipe eval runs="$runs" metric=iou
wsolpipe eval runs="$runs" metric=all --json > "tables-$set.json"
for method in cam has cutmix; do
    wsoltrain noise runs="searches/$set/$method" "${place[@]}" plots="plots/$set-$method"
done
