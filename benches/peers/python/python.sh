# For the Python recipes: sourced by their `run`. The environment is that of requirements.txt in the recipe's folder.

python_recipe=$(dirname "$(readlink -f "$0")")
python_built="$PEER_CACHE/$(basename "$python_recipe")"
PYTHONPATH=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
export PYTHONPATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1

python_build() {
    if ! cmp --quiet "$python_recipe/requirements.txt" "$python_built/installed"; then
        python3 -m venv --clear "$python_built"
        "$python_built/bin/pip" install --quiet --requirement "$python_recipe/requirements.txt"
        cp "$python_recipe/requirements.txt" "$python_built/installed"
    fi
}
