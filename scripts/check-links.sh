#!/usr/bin/env bash
# Every relative link in a tracked Markdown file leads to a file, and every #fragment to a heading.
# Links to other hosts are not followed: a test must not fail for somebody else's outage.

# Backticks in single quotes are Markdown's here.
# shellcheck disable=SC2016
# shellcheck source=scripts/lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"
cd "$REPO"

# Code, in fences and in backticks, is not text with links.
prose() { sed -e '/^ *```/,/^ *```/d' -e 's/`[^`]*`//g' -- "$1"; }

# The anchors of a file's headings, as code hosts make them.
anchors() {
  sed -e '/^ *```/,/^ *```/d' -- "$1" | sed -n 's/^#\{1,6\} *//p' |
    sed -e 's/\[\([^]]*\)\]([^)]*)/\1/g' | tr '[:upper:]' '[:lower:]' |
    sed -e 's/[^[:alnum:] _-]//g' -e 's/ /-/g'
}

links() {
  {
    prose "$1" | grep -oP '\]\(\K[^)\s]+' || true
    prose "$1" | grep -oP '^\[[^\]]+\]:\s*\K\S+' || true
  } | sed -e 's/^<//' -e 's/>$//'
}

checked=0 broken=0
while IFS= read -r file; do
  [[ -f $file ]] || continue
  while IFS= read -r link; do
    case $link in
      [a-z]*:*) continue ;;
    esac
    checked=$((checked + 1))
    path=${link%%#*}
    fragment=
    [[ $link == *'#'* ]] && fragment=${link#*#}
    case $path in
      '') target=$file ;;
      /*) target=.$path ;;
      *) target=$(dirname -- "$file")/$path ;;
    esac
    if [[ ! -e $target ]]; then
      echo "$file: $link: no such file"
      broken=$((broken + 1))
    elif [[ -n $fragment && $target == *.md ]] && ! anchors "$target" | grep -qxF -- "$fragment"; then
      echo "$file: $link: no such heading"
      broken=$((broken + 1))
    fi
  done < <(links "$file")
# New files too: a link is to be mended before it is committed.
done < <(git ls-files --cached --others --exclude-standard -- '*.md')

echo "$checked relative links, $broken broken"
[[ $broken -eq 0 ]]
