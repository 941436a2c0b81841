<?php
// Custom Events v2: one registration for each event. Add those that your version
// has in evolution/CustomEvents/Runtime/v2/CustomEvent.php and that change a
// customer's state, flags, addresses or port.

require_once '/etc/usher_hint.php';

internal_event(
    CustomEvent::CUSTOMER_STATUS_CHANGE_BEFORE,
    static function ($event): bool {
        usher_hint((int)$event->get('customer_id'));

        return true; // anything else would stop the ERP's action
    },
);
