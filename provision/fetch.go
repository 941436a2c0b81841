package provision

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

// Fetcher reads everything from the ERP once. prev is the snapshot in use and
// may be nil: a hint only, for a fetcher that wants to save work. Subnets, Reserved
// and KeepSeats of the answer are filled by the Syncer. A Fetcher is called by one
// goroutine, never twice at a time. An error means that nothing of the answer
// may be used; a row that could not be read is a Problem in the Input instead.
type Fetcher interface {
	Fetch(ctx context.Context, prev *Snapshot) (Input, error)
}

// StateFetcher is a Fetcher that can read the states alone, much cheaper than
// everything. The Syncer then does that between whole fetches. It is called by
// the goroutine that calls Fetch.
type StateFetcher interface {
	// FetchStates reads the states of customers. ErrFetchFirst asks for a whole
	// fetch instead.
	FetchStates(ctx context.Context, prev *Snapshot) (StatesAnswer, error)
}

// CustomerFetcher is a Fetcher that can read a few customers by themselves, for
// hints. It is called by one goroutine, but not by the one that calls Fetch.
type CustomerFetcher interface {
	// FetchCustomers reads the states of some customers, and tells by Refresh if
	// their addresses are others than those of prev.
	FetchCustomers(ctx context.Context, ids []SubscriberID, prev *Snapshot) (StatesAnswer, error)
	// Moved tells if an access port of these customers is another than in prev.
	// It may take a call to the ERP for each.
	Moved(ctx context.Context, ids []SubscriberID, prev *Snapshot) (bool, error)
}

// StatesAnswer is what a read of states alone gives.
type StatesAnswer struct {
	States    map[SubscriberID]State // of whom it tells; all others stay as they are
	FetchedAt time.Time              // when it began; zero: the Syncer's own time
	Refresh   bool                   // something was seen that only a whole fetch can tell
}

// ErrFetchFirst says that states alone cannot be read before a whole fetch.
var ErrFetchFirst = errors.New("a whole fetch must come first")

// ErrRefused marks an error by which the ERP says no to this very change, and
// will say no again: the address is not known, the MAC is not wanted. A wrong
// key, a time-out, a 5xx answer or a page that is no answer are not refusals.
var ErrRefused = errors.New("refused by the ERP")

// MACReport says that a bound address was acknowledged to a MAC which the ERP
// does not have for it.
type MACReport struct {
	IP         netip.Addr   `json:"ip"`
	MAC        MAC          `json:"mac"`
	Subscriber SubscriberID `json:"subscriber,omitempty"`
	At         time.Time    `json:"at"` // when the packet came
}
