package syncer

import (
	"fmt"
	"strings"

	"github.com/usher-agent/usher/provision"
)

// blockedDiff says how the blocked customers of two snapshots differ, as "+25 paused, -3 stopped"; empty: not at all. Only
// those count who have something to block: a line or a subnet.
func blockedDiff(old, next *provision.Snapshot) string {
	sameLines := old != nil && next != nil && old.SameLines(next) && old.SameSubnets(next)
	var text []string
	for _, st := range []struct {
		state provision.State
		word  string
	}{{provision.StatePause, "paused"}, {provision.StateStop, "stopped"}} {
		for _, way := range []struct {
			sign     byte
			has, not *provision.Snapshot
		}{{'+', next, old}, {'-', old, next}} {
			if n := blockedOnlyIn(way.has, way.not, st.state, sameLines); n > 0 {
				text = append(text, fmt.Sprintf("%c%d %s", way.sign, n, st.word))
			}
		}
	}
	return strings.Join(text, ", ")
}

// blockedOnlyIn returns how many customers are blocked by a state in one snapshot and not in another.
func blockedOnlyIn(has, not *provision.Snapshot, st provision.State, sameLines bool) int {
	n, other := 0, stateCursor{of: not.Subscribers()}
	for _, sub := range has.Subscribers() {
		if sub.State != st {
			continue
		}
		same := other.state(sub.ID) == st
		if same && sameLines || !blockable(has, sub.ID) || same && blockable(not, sub.ID) {
			continue
		}
		n++
	}
	return n
}

func blockable(s *provision.Snapshot, id provision.SubscriberID) bool {
	return s.BySubscriber(id).Len() > 0 || len(s.SubnetsOf(id)) > 0
}
