package syncer

import (
	"github.com/usher-agent/usher/provision"
	"time"
)

// FetchOutcome is what became of one fetch. A closed set: it is a metric label.
type FetchOutcome string

// The outcomes of a fetch.
const (
	FetchPublished FetchOutcome = "published" // in use now
	FetchHeld      FetchOutcome = "held"      // the guard holds it
	FetchFailed    FetchOutcome = "failed"    // the ERP could not be read
)

// FetchKind says how much of the ERP a fetch reads. A closed set: it is a metric label.
type FetchKind string

// The kinds of fetches.
const (
	FetchFull      FetchKind = "full"      // bindings, states and devices
	FetchStates    FetchKind = "states"    // who is stopped and who is paused
	FetchCustomers FetchKind = "customers" // a few customers that hints named
)

// FetchReport tells one fetch.
type FetchReport struct {
	Kind    FetchKind
	Outcome FetchOutcome
	Took    time.Duration
	Waited  time.Duration // FetchCustomers: from the oldest of the hints to the end
	Err     error         // nil unless FetchFailed

	StatesKept bool // of FetchFull: the states could not be read and are those from before
}

// Observer sees what a Syncer does; the console makes metrics of it. Its
// methods are called one at a time, must not block and must not call back.
type Observer interface {
	Fetched(r FetchReport)
	// Published tells each snapshot that comes into use: fetched, stored,
	// accepted by hand or changed by an override. problems has a count of every
	// kind met, and is nil for a snapshot that was read from disk.
	Published(s *provision.Snapshot, problems map[provision.ProblemKind]int)
	// Held tells the fetch of which the guard holds something now, nil when it holds nothing any more.
	Held(h *HeldStatus)
	// OpenedUnconfirmed tells how many subscribers were opened above the limit because no card could be read.
	OpenedUnconfirmed(n int)
	Stored(took time.Duration, err error)
}

type noObserver struct{}

func (noObserver) Fetched(FetchReport)                                          {}
func (noObserver) Published(*provision.Snapshot, map[provision.ProblemKind]int) {}
func (noObserver) Held(*HeldStatus)                                             {}
func (noObserver) OpenedUnconfirmed(int)                                        {}
func (noObserver) Stored(time.Duration, error)                                  {}
