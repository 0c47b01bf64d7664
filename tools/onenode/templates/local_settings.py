DEBUG = False
ALLOWED_HOSTS = ['*']
LOCAL_PATH = '${data}/horizon'
SECRET_KEY = '${password_horizon}'
STATIC_ROOT = '${data}/horizon/static'
COMPRESS_ENABLED = True
COMPRESS_OFFLINE = True
SESSION_ENGINE = 'django.contrib.sessions.backends.cache'
CACHES = {
    'default': {
        'BACKEND': 'django.core.cache.backends.memcached.PyMemcacheCache',
        'LOCATION': '${memcached}',
    },
}
OPENSTACK_HOST = '${management}'
OPENSTACK_KEYSTONE_URL = '${auth_url}'
OPENSTACK_API_VERSIONS = {'identity': 3, 'image': 2}
CONSOLE_TYPE = 'SERIAL'
# A container's root file system is no volume.
LAUNCH_INSTANCE_DEFAULTS = {'create_volume': False}
TIME_ZONE = 'UTC'
