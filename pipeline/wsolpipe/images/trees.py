"""How the folder of each layout should look, for the message that a missing root gets."""

from __future__ import annotations

_METADATA = """\
  {root}/                       image files, at the paths that image_ids.txt names
  <metadata>/                   or <metadata>/<split>/ where the YAML maps splits to folders
    image_ids.txt               path
    class_labels.txt            path,label            (several: repeat the line, or path,1;4)
    image_sizes.txt             path,width,height     (optional)
    localization.txt            path,x0,y0,x1,y1  or  path,mask.png,ignore.png   (optional)
    classes.txt                 label,name            (optional)"""

TREES = {
    "folder": """\
  {root}/
    cat/  0001.jpg …            one sub-folder a class, or <split>/<class>/ where the YAML maps splits to folders
    dog/  0001.jpg …""",
    "metadata": _METADATA,
    "openimages": """\
  {root}/
    train/<class>/<id>.jpg  val/…  test/…
    train/<class>/<id>_m<class>_<hash>.png  <id>_ignore.png      masks, beside the images or under masks:
    metadata/train|val|test/    image_ids.txt class_labels.txt image_sizes.txt localization.txt""",
    "csv": """\
  {root}/                       image files, at the paths that the table names
  <metadata>                    a .csv or .parquet table with the columns path, label (or 1;4), and, where known,
                                image_id, width, height, x0, y0, x1, y1, mask, ignore, group, frame, split""",
    "cub": """\
  {root}/                       CUB_200_2011 as published
    images/001.Black_footed_Albatross/…jpg
    images.txt  image_class_labels.txt  train_test_split.txt  bounding_boxes.txt  classes.txt
    segmentations/001.Black_footed_Albatross/…png                 (optional)""",
    "ilsvrc": """\
  {root}/
    Data/CLS-LOC/train/n01440764/…JPEG   Data/CLS-LOC/val/ILSVRC2012_val_00000001.JPEG
    Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml
    LOC_synset_mapping.txt      or devkit/data/map_clsloc.txt
    val2/<class>/<i>.jpeg       ImageNetV2, with <metadata>/val/ for its boxes""",
}
