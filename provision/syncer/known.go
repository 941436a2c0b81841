package syncer

import (
	"maps"
	"slices"
	"time"

	"github.com/usher-agent/usher/provision"
)

// known is what the guard knows beside the snapshot in use. It is kept over restarts (hour.go).
type known struct {
	erp      string // which ERP it is of, as Options have it; empty: not told
	passed   lately // what the guard let pass within the last hour
	rejected marks  // changes that an operator rejected, until the ERP takes them back
	noRows   bool   // an operator rejected an answer without rows, and none with rows came since
	// contradicted are those whom lists would let in and whose own cards said no.
	contradicted map[provision.SubscriberID]bool

	// What was going on when the file was written: it is in here on the way to the file and from it alone.
	hints map[provision.SubscriberID]time.Time // whose cards are to be read for a hint, and since when
	since map[provision.SubscriberID]time.Time // whose openings wait for cards, and since when
}

// of reports whether it is of one ERP, as far as both are told. Ids of customers mean others in another one.
func (k *known) of(erp string) bool { return k.erp == "" || erp == "" || k.erp == erp }

// empty reports whether nothing is known.
func (k *known) empty() bool {
	n := len(k.contradicted) + len(k.hints) + len(k.since)
	for _, kind := range changeKinds {
		n += len(k.passed[kind]) + len(k.rejected[kind])
	}
	return n == 0 && !k.noRows
}

func newKnown() known {
	return known{passed: lately{}, rejected: marks{}, contradicted: make(map[provision.SubscriberID]bool)}
}

// before stands in for the snapshot of before where that is lost: whom an operator, or the own card, kept from being let in was blocked.
// How is not known any more, and who is paused can pay.
func (k *known) before() *provision.Snapshot {
	var in provision.Input
	for _, marked := range []map[provision.SubscriberID]bool{k.rejected[ChangeOpened], k.contradicted} {
		for id := range marked {
			in.Subscribers = append(in.Subscribers, provision.Subscriber{ID: id, State: provision.StatePause})
		}
	}
	s, _ := provision.Build(in)
	return s
}

// closedAtFirst returns those whom the first answer would let in, and whose own cards said no before.
func (k *known) closedAtFirst(candidate *provision.Snapshot) (ids []provision.SubscriberID) {
	for id := range k.contradicted {
		if wants(ChangeOpened, id, nil, candidate, nil) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// marks are subscribers by kind of change.
type marks map[ChangeKind]map[provision.SubscriberID]bool

func (m marks) add(k ChangeKind, ids ...provision.SubscriberID) {
	for _, id := range ids {
		if m[k] == nil {
			m[k] = make(map[provision.SubscriberID]bool)
		}
		m[k][id] = true
	}
}

func (m marks) drop(k ChangeKind, ids ...provision.SubscriberID) {
	for _, id := range ids {
		delete(m[k], id)
	}
}

// ids returns those of a kind, ascending.
func (m marks) ids(k ChangeKind) []provision.SubscriberID { return slices.Sorted(maps.Keys(m[k])) }

// without returns those of ids that are not marked; it may reuse ids.
func (m marks) without(k ChangeKind, ids []provision.SubscriberID) []provision.SubscriberID {
	if len(m[k]) == 0 {
		return ids
	}
	return slices.DeleteFunc(ids, func(id provision.SubscriberID) bool { return m[k][id] })
}

// takeBack forgets what the ERP itself does not say any more, by an answer that would change old as changes has it: whom an operator
// kept from being changed, whose own cards said no, and whose openings waited before a restart. What the answer does not tell is not
// taken back.
func (k *known) takeBack(f *fetched, old *provision.Snapshot, all changes) (forgot bool) {
	gone := func(kind ChangeKind, id provision.SubscriberID) bool {
		switch kind {
		case ChangeBlocked, ChangeOpened:
			if f.statesKept || f.untold(id) {
				return false
			}
		default:
			if f.kind != FetchFull {
				return false
			}
		}
		gone := !wants(kind, id, old, f.snap, all)
		forgot = forgot || gone
		return gone
	}
	for kind := range k.rejected {
		maps.DeleteFunc(k.rejected[kind], func(id provision.SubscriberID, _ bool) bool { return gone(kind, id) })
	}
	maps.DeleteFunc(k.contradicted, func(id provision.SubscriberID, _ bool) bool { return gone(ChangeOpened, id) })
	maps.DeleteFunc(k.since, func(id provision.SubscriberID, _ time.Time) bool { return gone(ChangeOpened, id) }) // a later one begins anew
	if f.kind == FetchFull && k.noRows {
		k.noRows, forgot = false, true
	}
	return forgot
}
