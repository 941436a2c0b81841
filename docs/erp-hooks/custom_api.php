<?php
// The old generation: one function for all events. If the file has one already,
// take over the line with usher_hint_event into it.

require_once '/etc/usher_hint.php';

// Finds the customer that an event is about: a key of the arguments, or, of
// events about customers (user_mark_add and the like), the first argument.
function usher_hint_event($event, array $arguments)
{
    foreach ($arguments as $argument) {
        if (!is_array($argument)) {
            continue;
        }
        foreach (['customerId', 'customer_id', 'userId', 'user_id', 'usercode'] as $key) {
            if (isset($argument[$key]) && is_numeric($argument[$key])) {
                usher_hint($argument[$key]);
                return;
            }
        }
    }
    $first = reset($arguments);
    if (is_numeric($first) && preg_match('/^(user|customer|abon)_/', (string)$event)) {
        usher_hint($first);
    }
}

function api_function($event, $arg1 = 0, $arg2 = 0, $arg3 = 0, $arg4 = 0, $arg5 = 0)
{
    usher_hint_event($event, [$arg1, $arg2, $arg3, $arg4, $arg5]);
    return true; // anything else would stop the ERP's action
}
