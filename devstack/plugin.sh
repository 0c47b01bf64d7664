#!/bin/bash
# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

# Sourced by DevStack with a mode (stack, unstack, clean) and, for stack, a
# phase. See https://docs.openstack.org/devstack/latest/plugins.html

_XTRACE_NOVA_CONTAINER=$(set +o | grep xtrace)
set +o xtrace

# Oldest kernel with overlayfs on layers that are mounted with mapped ids.
NOVA_CONTAINER_KERNEL=5.19

# What a machine must have that no package brings.
function check_nova_container {
    local kernel
    kernel=$(uname -r)
    if vercmp "${kernel%%[^0-9.]*}" "<" "$NOVA_CONTAINER_KERNEL"; then
        die $LINENO "nova-container needs Linux $NOVA_CONTAINER_KERNEL or" \
            "later, and this is $kernel; boot a newer kernel"
    fi
    if [[ ! -e /proc/self/ns/user ]]; then
        die $LINENO "nova-container needs user namespaces, and this kernel" \
            "has none; boot one with CONFIG_USER_NS"
    fi
}

function install_nova_container {
    # Packages were installed by DevStack itself: devstack/files/bindep.txt.
    if is_service_enabled h-eng; then
        setup_develop "$NOVA_CONTAINER_DIR" heat
    else
        setup_develop "$NOVA_CONTAINER_DIR"
    fi
}

function configure_nova_container_compute {
    iniset "$NOVA_CONF" DEFAULT compute_driver nova_container.ContainerDriver
    iniset "$NOVA_CONF" container state_path "$NOVA_CONTAINER_STATE_PATH"
    iniset "$NOVA_CONF" container run_path "$NOVA_CONTAINER_RUN_PATH"
    iniset "$NOVA_CONF" container cgroup_parent "$NOVA_CONTAINER_CGROUP_PARENT"
    iniset "$NOVA_CONF" container oci_runtime "$NOVA_CONTAINER_OCI_RUNTIME"

    sudo install -d -o root -g root -m 755 "$NOVA_CONF_DIR/rootwrap.d"
    sudo install -o root -g root -m 644 \
        "$NOVA_CONTAINER_DIR/etc/nova/rootwrap.d/nova-container.filters" \
        "$NOVA_CONF_DIR/rootwrap.d"
}

# All that a machine must have, packages and options included.
function check_nova_container_host {
    local python
    python=$(_nova_container_python)
    if ! sudo "$python" -m nova_container.cli check \
            --config-file "$NOVA_CONF"; then
        die $LINENO "this machine cannot run containers: mend what is called" \
            "missing above, and run stack.sh again"
    fi
}

# Heat is a plugin, too, and writes its file at post-config; it must be listed
# before this one.
function configure_nova_container_heat {
    if [[ ! -e "${HEAT_CONF:-}" ]]; then
        die $LINENO "heat.conf is not there yet: put enable_plugin heat" \
            "before enable_plugin nova-container in local.conf"
    fi
    iniset "$HEAT_CONF" DEFAULT plugin_dirs \
        "$NOVA_CONTAINER_DIR/heat_plugin/plugins,/usr/lib64/heat,/usr/lib/heat"
}

function create_nova_container_flavor {
    if ! openstack --os-cloud devstack-admin flavor show \
            "$NOVA_CONTAINER_FLAVOR" >/dev/null 2>&1; then
        openstack --os-cloud devstack-admin flavor create \
            --vcpus 1 --ram 256 --disk 1 "$NOVA_CONTAINER_FLAVOR"
    fi
}

function upload_nova_container_image {
    local archive="$FILES/nova-container-$NOVA_CONTAINER_IMAGE.tar"
    if [[ "$NOVA_CONTAINER_IMAGE" == "none" ]]; then
        return 0
    fi
    if ! is_ubuntu; then
        warn $LINENO "tools/demo-image takes packages of Debian or Ubuntu:" \
            "no image is uploaded"
        return 0
    fi
    local state
    state=$(openstack --os-cloud devstack-admin image show \
        -f value -c status "$NOVA_CONTAINER_IMAGE" 2>/dev/null) || true
    if [[ "$state" == "active" ]]; then
        return 0
    elif [[ -n "$state" ]]; then
        # An upload that did not come to its end.
        openstack --os-cloud devstack-admin image delete \
            "$NOVA_CONTAINER_IMAGE"
    fi
    sudo "$NOVA_CONTAINER_DIR/tools/demo-image" "$NOVA_CONTAINER_IMAGE" \
        "$archive"
    openstack --os-cloud devstack-admin image create --public \
        --container-format docker --disk-format raw \
        --property img_hv_type=docker --file "$archive" \
        "$NOVA_CONTAINER_IMAGE"
}

# Only what the driver can do is to be tried.
function configure_nova_container_tempest {
    local feature
    for feature in attach_encrypted_volume live_migration spice_console; do
        iniset "$TEMPEST_CONFIG" compute-feature-enabled $feature False
    done
    iniset "$TEMPEST_CONFIG" compute-feature-enabled config_drive True
    iniset "$TEMPEST_CONFIG" validation run_validation False
}

# halt-all: no process, mount or interface of a container is left.
# destroy-all: nor its files.
function end_nova_container {
    local verb=$1
    local python
    python=$(_nova_container_python)
    if [[ ! -e "$NOVA_CONF" ]] || ! "$python" -c "import nova_container"; then
        # Nothing was installed yet, so nothing was started.
        return 0
    fi
    sudo "$python" -m nova_container.cli "$verb" --config-file "$NOVA_CONF"
}

function _nova_container_python {
    if [[ "${GLOBAL_VENV:-}" == "True" ]]; then
        echo "$DEVSTACK_VENV/bin/python3"
    else
        command -v python3
    fi
}

function stop_nova_container {
    # Otherwise it would see its containers end, and tell Nova.
    stop_process n-cpu
    end_nova_container halt-all
}

function cleanup_nova_container {
    end_nova_container destroy-all
    sudo rm -rf "$NOVA_CONTAINER_STATE_PATH" "$NOVA_CONTAINER_RUN_PATH"
    sudo rm -f "$NOVA_CONF_DIR/rootwrap.d/nova-container.filters"
    rm -f "$FILES/nova-container-$NOVA_CONTAINER_IMAGE.tar"
}

function nova_container_is_compute {
    [[ "$NOVA_CONTAINER_COMPUTE" == "True" ]] && is_service_enabled n-cpu
}

case "$1 ${2:-}" in
    "stack pre-install")
        if nova_container_is_compute; then
            echo_summary "Checking the machine for nova-container"
            check_nova_container
        fi
        ;;
    "stack install")
        echo_summary "Installing nova-container"
        install_nova_container
        ;;
    "stack post-config")
        if nova_container_is_compute; then
            echo_summary "Configuring nova-container"
            configure_nova_container_compute
            check_nova_container_host
        fi
        if is_service_enabled h-eng; then
            configure_nova_container_heat
        fi
        ;;
    "stack extra")
        if is_service_enabled n-api; then
            create_nova_container_flavor
        fi
        if is_service_enabled g-api; then
            upload_nova_container_image
        fi
        ;;
    "stack test-config")
        if is_service_enabled tempest; then
            configure_nova_container_tempest
        fi
        ;;
    "unstack "*)
        if nova_container_is_compute; then
            stop_nova_container
        fi
        ;;
    "clean "*)
        cleanup_nova_container
        ;;
esac

$_XTRACE_NOVA_CONTAINER
