#!/bin/bash
#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.

# shellcheck disable=SC1091
# What the plugin calls of DevStack, as far as it needs it, and what calls the
# plugin. The tests take DevStack's own functions instead where DEVSTACK_DIR
# says where they are.

function define_plugin {
    :
}

# enable_plugin NAME URL
function enable_plugin {
    PLUGIN=$DEST/$1/devstack
}

# run_phase MODE [PHASE]
function run_phase {
    case "$1" in
        override_defaults) source "$PLUGIN/override-defaults" ;;
        source) source "$PLUGIN/settings" ;;
        *) source "$PLUGIN/plugin.sh" "$@" ;;
    esac
}

function echo_summary {
    echo "$@"
}

function warn {
    echo "[WARNING] ${*:2}" >&2
}

function die {
    echo "[ERROR] ${*:2}" >&2
    exit 1
}

function trueorfalse {
    local value=${!2:-}
    case "${value,,}" in
        1|yes|true) echo True ;;
        0|no|false) echo False ;;
        *) echo "$1" ;;
    esac
}

function vercmp {
    local lowest
    lowest=$(printf '%s\n' "$1" "$3" | sort -V | head -n 1)
    [[ "$2" == "<" && "$1" != "$3" && "$lowest" == "$1" ]]
}

function is_service_enabled {
    [[ ",$ENABLED_SERVICES," == *",$1,"* ]]
}

function is_ubuntu {
    true
}

# iniset FILE SECTION OPTION VALUE
function iniset {
    local file=$1 section=$2 option=$3 value=$4
    touch "$file"
    awk -v section="[$section]" -v option="$option" -v value="$value" '
        function put() { if (!done) print option " = " value; done = 1 }
        /^\[/ && inside { put(); inside = 0 }
        $0 == section { inside = 1 }
        inside && $1 == option { put(); next }
        { print }
        END {
            if (!inside && !done) print section
            put()
        }' "$file" >"$file.new"
    mv "$file.new" "$file"
}
