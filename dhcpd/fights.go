package dhcpd

import (
	"log/slog"
	"maps"
	"net/netip"
	"time"
)

// maxFights bounds how many addresses that devices fight over are remembered.
const maxFights = 1024

// fights are the addresses whose take-over was put off and logged, with the end of the wait:
// a device that waits asks every minute, and one line tells of it.
type fights map[netip.Addr]time.Time

// log tells once of each take-over that is put off until a time. Beyond maxFights at a time
// only their outcomes tell.
func (f *fights) log(to *slog.Logger, e *Event, until time.Time) {
	if (*f)[e.YourIP].Equal(until) {
		return
	}
	if len(*f) >= maxFights {
		maps.DeleteFunc(*f, func(_ netip.Addr, end time.Time) bool { return !e.Time.Before(end) })
	}
	if len(*f) >= maxFights {
		return
	}
	if *f == nil {
		*f = fights{}
	}
	(*f)[e.YourIP] = until
	to.Warn("two devices fight over an address, the next take-over waits",
		"ip", e.YourIP, "subscriber", e.Subscriber, "has_it", e.Rival, "wants_it", e.MAC, "until", until,
		"source", e.Source, "interface", e.Interface, "vouched_by", e.VouchedBy.String(), "matched_by", e.MatchedBy.String(), "rule", e.Rule.String())
}
