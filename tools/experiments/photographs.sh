#!/usr/bin/env bash
# Runs on photographs, one after another; called again, it goes on where it stopped. Run it where README.md's first line
# put the sets, the store "labels" and the folder "weights".
# usage: photographs.sh SEEDS SET RECIPE ...     photographs.sh 0,1,2 cub10 dips trcam_cams
set -eu
seeds=$1 set=$2
shift 2
here=$(realpath "$(dirname "$0")")
[ -f "anchors-$set.safetensors" ] ||
    python "$here/random_anchors.py" dataset="$set.yaml" store=labels out="anchors-$set.safetensors"
for recipe in "$@"; do
    own=()
    [ "$recipe" != tedloc ] || own=("anchors=anchors-$set.safetensors" by=proposals,cls)
    python "$here/students.py" dataset="$set.yaml" store=labels out="runs/$set" seeds="$seeds" gt=true \
        recipes="$here/photographs/$recipe.yaml" "${own[@]}"
done
