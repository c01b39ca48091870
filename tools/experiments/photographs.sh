#!/usr/bin/env bash
# Every run on photographs of the tables in README.md, one after another; called again, it goes on where it stopped.
# usage: photographs.sh WORK WEIGHTS SEEDS [SET ...]     WORK holds SET.yaml and the store "labels" (README.md)
set -eu
work=$1 weights=$2 seeds=$3
shift 3
here=$(dirname "$0")
vit="backbone=vit_tiny_patch16_224 weights=$weights/vit_tiny_patch16_224_in1k.safetensors mean=[0.5,0.5,0.5] std=[0.5,0.5,0.5]"
cnn="backbone=mobilenetv2_100 model_args={pad_type:same} weights=$weights/mobilenetv2_100_tf_in1k.safetensors mean=[0.5,0.5,0.5] std=[0.5,0.5,0.5]"
small="size=128 batch=16 epochs=4 schedule=cosine lr=0.1"
crf="crf_weight=3e-7 crf_sigma_xy=57 crf_scale=0.5"
pixels="pixels.n_fg=100 pixels.n_bg=200 pixels.fg_share=0.3 pixels.bg_share=0.9 pixels.region=all pixels.keep_out=false pixels.balanced=false temperature=10"
[ $# -gt 0 ] || set -- fewclass5 cub10
for set in "$@"; do
    students() { python "$here/students.py" dataset="$work/$set.yaml" store="$work/labels" out="$work/runs/$set" seeds="$seeds" gt=true "$@"; }
    anchors=$work/anchors-$set.safetensors
    [ -f "$anchors" ] || python "$here/random_anchors.py" dataset="$work/$set.yaml" store="$work/labels" out="$anchors"
    # shellcheck disable=SC2086 # several words each
    {
        students recipes=dips $vit $small $crf head_epochs=1 pixels.n_fg=100 pixels.n_bg=100 ceiling=true
        students recipes=trcam name=trcam_cams maps=cams $vit $small $crf head_epochs=1 $pixels
        students recipes=tedloc $vit $small maps=cams anchors="$anchors" doublings=2 decoder_width=64 patches=30
        students recipes=dips_workshop $cnn $small $crf pixels.n_fg=100 pixels.n_bg=100 cls_weight=0 lr=0.05
        students recipes=trcam name=trcam_cls_maps maps=cls_maps $vit $small $crf head_epochs=1 $pixels
    } > "$work/$set.log"
done
