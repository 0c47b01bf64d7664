/*
 * Licensed under the Apache License, Version 2.0 (the "License"); you may
 * not use this file except in compliance with the License. You may obtain
 * a copy of the License at
 *
 *      http://www.apache.org/licenses/LICENSE-2.0
 *
 * Unless required by applicable law or agreed to in writing, software
 * distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
 * WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
 * License for the specific language governing permissions and limitations
 * under the License.
 */
/* Horizon offers those of its image formats that are disk formats of Glance,
   and "docker" is a container format there. */
(function () {
  'use strict';

  var SERVICES = 'horizon.app.core.openstack-service-api';

  function addDocker($delegate) {
    var get = $delegate.getSettings;
    $delegate.getSettings = function () {
      return get.apply($delegate, arguments).then(function (settings) {
        var formats = settings.OPENSTACK_IMAGE_FORMATS;
        if (formats && formats.indexOf('docker') < 0) {
          formats.push('docker');
        }
        return settings;
      });
    };
    return $delegate;
  }

  angular.module(SERVICES).config(['$provide', function ($provide) {
    $provide.decorator(SERVICES + '.settings', ['$delegate', addDocker]);
  }]);
}());
