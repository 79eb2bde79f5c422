#!/usr/bin/env bash
# Makes the tree that travels to a lent machine small, and whole again, in the repository's root:
#   light_tree.sh off [PATH …]     takes models, documents, results and the kernels' binary out of the index alone; nothing is deleted
#   light_tree.sh on               puts them back
# Commit everything before `off`, and nothing in between: what git neither tracks nor may add does not travel.
set -euo pipefail
exclude=$(git rev-parse --git-path info/exclude)
begin="# light_tree.sh: begin" end="# light_tree.sh: end"
case ${1:-} in
off)
  [ -z "$(git status --porcelain)" ] || { echo "commit first: the tree is not clean"; exit 1; }
  paths=("${@:2}"); [ ${#paths[@]} -gt 0 ] || paths=(models docs benchmarks/results kernels/gram.zip)
  mkdir -p "$(dirname "$exclude")"
  { echo "$begin"; printf '/%s\n' "${paths[@]}"; echo "$end"; } >> "$exclude"
  git rm -rq --cached -- "${paths[@]}"
  git ls-files -z | xargs -0 du -cb | tail -n 1 | awk '{printf "%.1f MB travel\n", $1 / 1e6}'
  ;;
on)
  git reset -q
  [ ! -f "$exclude" ] || sed -i "/^$begin/,/^$end/d" "$exclude"
  git status --short
  ;;
*)
  echo "off or on, not '${1:-}'"; exit 2
  ;;
esac
