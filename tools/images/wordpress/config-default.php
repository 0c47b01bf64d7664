<?php
/* What the entrypoint's environment says. */
foreach (array('DB_HOST', 'DB_NAME', 'DB_USER', 'DB_PASSWORD') as $name) {
    define($name, (string) getenv('WORDPRESS_' . $name));
}
define('WP_CONTENT_DIR', '/var/lib/wordpress/wp-content');
foreach (array('AUTH_KEY', 'SECURE_AUTH_KEY', 'LOGGED_IN_KEY', 'NONCE_KEY',
               'AUTH_SALT', 'SECURE_AUTH_SALT', 'LOGGED_IN_SALT',
               'NONCE_SALT') as $name) {
    define($name, hash('sha512', $name . getenv('WORDPRESS_SECRET')));
}
/* Nothing is fetched from outside. */
define('WP_HTTP_BLOCK_EXTERNAL', true);
define('AUTOMATIC_UPDATER_DISABLED', true);
define('DISABLE_WP_CRON', true);
