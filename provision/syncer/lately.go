package syncer

import (
	"slices"
	"time"

	"github.com/usher-agent/usher/provision"
)

// guardWindow is how long what passed the guard counts.
const guardWindow = time.Hour

// lately is whom the guard let pass within the last hour, by kind: many answers in which few change add up to what it
// is there to hold. Subscribers count, not changes, and each once in a kind: who is blocked by mistake and opened again, whatever the
// limits, counts as blocked for the rest of the hour, or answers that are each wrong about others would hit everybody in turn. It is
// kept over restarts beside the snapshot (hour.go).
type lately map[ChangeKind]map[provision.SubscriberID]passing

// passing is one change that passed.
type passing struct {
	until time.Time // it counts until then
	card  bool      // the subscriber's own card said so, read for a hint
	free  bool      // an operator let it pass, or nobody could ask: it counts for nothing
	word  bool      // an operator let it pass, or the configuration expected it: it did not slip through below the limit
	back  bool      // it was taken back since
}

// stands reports whether a change of a kind that passed is taken back only as any other change is made: the own card said so, or
// it was somebody's word. To get back what was lost is no harm, whoever had it lost.
func (p passing) stands(k ChangeKind) bool { return p.card || p.word && k != ChangeRemoved }

// expire forgets what is older than an hour.
func (l lately) expire(now time.Time) {
	for _, of := range l {
		for id, p := range of {
			if !p.until.After(now) {
				delete(of, id)
			}
		}
	}
}

// without returns those of ids whose change of a kind does not take back what merely slipped through.
func (l lately) without(k ChangeKind, ids []provision.SubscriberID) []provision.SubscriberID {
	undone := k.undoes()
	if len(l[undone]) == 0 {
		return slices.Clone(ids)
	}
	var out []provision.SubscriberID
	for _, id := range ids {
		if p, in := l[undone][id]; !in || p.back || p.stands(undone) {
			out = append(out, id)
		}
	}
	return out
}

// count returns how many of a kind passed that the changes to come do not repeat; with cards only those whose cards said so.
func (l lately) count(k ChangeKind, coming changes, cards bool) int {
	n := 0
	for id, p := range l[k] {
		if !p.free && (p.card || !cards) && !coming.has(k, id) {
			n++
		}
	}
	return n
}

// pass notes what of a verdict comes into use.
func (l lately) pass(v *verdict, limits *GuardLimits, p passing, now time.Time) {
	for k, ids := range v.changes {
		p, expected := p, false
		_, p.until, expected = limits.share(k, now)
		p.word = p.word || expected
		for _, id := range ids {
			if v.holds(k, id) {
				continue
			}
			if before, in := l[k.undoes()][id]; in && !before.back {
				stands := before.stands(k.undoes())
				before.back = true
				l[k.undoes()][id] = before
				if !stands {
					continue
				}
			}
			if l[k] == nil {
				l[k] = make(map[provision.SubscriberID]passing)
			}
			l[k][id] = p
		}
	}
}
