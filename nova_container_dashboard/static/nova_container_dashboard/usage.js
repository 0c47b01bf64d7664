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
/* Draws what a container uses, from counters that are asked for regularly.
   d3 comes with Horizon. */
(function () {
  'use strict';

  var INTERVAL = 2000;
  var POINTS = 60;
  var WIDTH = 220;
  var HEIGHT = 80;

  function bytes(value) {
    var units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
    var index = 0;
    while (value >= 1024 && index < units.length - 1) {
      value /= 1024;
      index += 1;
    }
    return value.toFixed(index && value < 10 ? 1 : 0) + ' ' + units[index];
  }

  function rate(name) {
    return function (now, before) {
      return Math.max(0, (now[name] - before[name]) / (now.time - before.time));
    };
  }

  function perSecond(value) { return bytes(value) + '/s'; }

  var GRAPHS = [
    {name: 'cpu', value: function (now, before) { return rate('cpu')(now, before) / 1e9; },
     text: function (value) { return value.toFixed(2); }, least: 0.1},
    {name: 'memory', value: function (now) { return now.memory; },
     text: function (value, now) {
       return bytes(value) + (now.memory_limit ? ' / ' + bytes(now.memory_limit) : '');
     }, least: 1 << 20},
    {name: 'received', value: rate('received'), text: perSecond, least: 1024},
    {name: 'sent', value: rate('sent'), text: perSecond, least: 1024},
    {name: 'read', value: rate('read'), text: perSecond, least: 1024},
    {name: 'written', value: rate('written'), text: perSecond, least: 1024},
    {name: 'processes', value: function (now) { return now.processes; },
     text: String, least: 1}
  ];

  function Graph(parent, description, label) {
    var figure = parent.append('figure').attr('class', 'nova-container-graph');
    var svg = figure.append('svg').attr({width: WIDTH, height: HEIGHT,
                                         role: 'img', 'aria-label': label});
    var path = svg.append('path');
    var caption = figure.append('figcaption');
    caption.append('span').text(label);
    var output = caption.append('output');
    var values = [];
    this.add = function (now, before) {
      var value = description.value(now, before);
      values.push(value);
      values = values.slice(-POINTS);
      var x = d3.scale.linear().domain([0, POINTS - 1]).range([0, WIDTH]);
      var y = d3.scale.linear().range([HEIGHT - 2, 2])
        .domain([0, Math.max(description.least, d3.max(values))]);
      path.attr('d', d3.svg.line()
        .x(function (_, index) { return x(index + POINTS - values.length); })
        .y(function (item) { return y(item); })(values));
      output.text(description.text(value, now));
    };
  }

  window.novaContainerUsage = function (element) {
    var parent = d3.select(element);
    var before = null;
    var paused = false;
    var turn = 0;
    if (element.dataset.status !== 'ACTIVE') {
      parent.append('p').text(element.dataset.stopped);
      return;
    }
    var button = parent.append('button').attr({type: 'button', 'class': 'btn btn-default'})
      .text(element.dataset.pause);
    var place = parent.append('div');
    var graphs = GRAPHS.map(function (description) {
      return new Graph(place, description, element.dataset[description.name]);
    });

    // What was begun before the last click ends with what it waits for.
    function poll(mine) {
      if (!document.body.contains(element) || mine !== turn) { return; }
      $.ajax({url: element.dataset.url, dataType: 'json'}).done(function (now) {
        if (mine !== turn) { return; }
        if (before) {
          graphs.forEach(function (graph) { graph.add(now, before); });
          element.dataset.drawn = Number(element.dataset.drawn || 0) + 1;
        }
        before = now;
        window.setTimeout(poll, INTERVAL, mine);
      }).fail(function (answer) {
        if (mine !== turn) { return; }
        button.remove();
        place.remove();
        parent.append('p').text(answer.status === 403
          ? element.dataset.refused : element.dataset.stopped);
      });
    }

    button.on('click', function () {
      paused = !paused;
      button.text(paused ? element.dataset.goOn : element.dataset.pause);
      before = null;
      turn += 1;
      if (!paused) { poll(turn); }
    });
    poll(turn);
  };
}());
