package syncer

import (
	"context"
	"errors"
	"github.com/usher-agent/usher/provision"
	"time"
)

// Fetcher reads everything from the ERP once. prev is the snapshot in use and
// may be nil: a hint only, for a fetcher that wants to save work. Subnets, Reserved,
// Pools, Relays and KeepVacant of the answer are filled by the Syncer. Fetch is never called twice
// at a time. An error means that nothing of the answer may be used; a row that
// could not be read is a Problem in the Input instead.
type Fetcher interface {
	Fetch(ctx context.Context, prev *provision.Snapshot) (provision.Input, error)
}

// StateFetcher is a Fetcher that can read the states alone, much cheaper than
// everything. The Syncer then does that between whole fetches, and while one
// takes its time: beside Fetch, but never twice at a time.
type StateFetcher interface {
	// FetchStates reads the states of customers. ErrFetchFirst asks for a whole
	// fetch instead.
	FetchStates(ctx context.Context, prev *provision.Snapshot) (StatesAnswer, error)
}

// EarlyStates is a StateFetcher that tells what lists of states say before it goes on to read cards, which may take long.
type EarlyStates interface {
	// FetchStatesEarly is FetchStates, but calls early once with what is known without cards, if there are cards to read.
	FetchStatesEarly(ctx context.Context, prev *provision.Snapshot, early func(StatesAnswer)) (StatesAnswer, error)
}

// CustomerFetcher is a Fetcher that can read a few customers by themselves, for
// hints. It is called by one goroutine, beside the methods above.
type CustomerFetcher interface {
	// FetchCustomers reads the states of some customers, and tells by Refresh if
	// their addresses are others than those of prev.
	FetchCustomers(ctx context.Context, ids []provision.SubscriberID, prev *provision.Snapshot) (StatesAnswer, error)
	// Moved tells if an access port of these customers is another than in prev.
	// It may take a call to the ERP for each.
	Moved(ctx context.Context, ids []provision.SubscriberID, prev *provision.Snapshot) (bool, error)
}

// StatesAnswer is what a read of states alone gives.
type StatesAnswer struct {
	States    map[provision.SubscriberID]provision.State // of whom it tells; all others stay as they are
	FetchedAt time.Time                                  // when it began; zero: the Syncer's own time
	Refresh   bool                                       // something was seen that only a whole fetch can tell
	FirstRead []provision.SubscriberID                   // as in provision.Input
}

// ErrFetchFirst says that states alone cannot be read before a whole fetch.
var ErrFetchFirst = errors.New("a whole fetch must come first")
