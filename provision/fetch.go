package provision

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

// Fetcher reads everything from the ERP once. prev is the snapshot in use and
// may be nil: a hint only, for a fetcher that wants to save work. Subnets and
// Reserved of the answer are filled by the Syncer. A Fetcher is called by one
// goroutine, never twice at a time. An error means that nothing of the answer
// may be used; a row that could not be read is a Problem in the Input instead.
type Fetcher interface {
	Fetch(ctx context.Context, prev *Snapshot) (Input, error)
}

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
