package syncer

import (
	"github.com/usher-agent/usher/provision"
	"time"
)

// Status is the state of a Syncer for people and programs.
type Status struct {
	Source      provision.Source `json:"source"` // empty: no snapshot yet
	FetchedAt   time.Time        `json:"fetched_at,omitzero"`
	AgeSeconds  float64          `json:"age_seconds"`
	PublishedAt time.Time        `json:"published_at,omitzero"`
	Fingerprint string           `json:"fingerprint,omitempty"` // hexadecimal
	Counts      provision.Counts `json:"counts"`

	Problems     map[provision.ProblemKind]int `json:"problems"`               // of the snapshot in use
	ProblemsList []provision.Problem           `json:"problems_list,omitzero"` // at most 1000 of them

	Fetching            bool      `json:"fetching"`
	LastKind            FetchKind `json:"last_kind,omitempty"`  // of the newest poll: full or states
	LastFetchSeconds    float64   `json:"last_fetch_seconds"`   // of the newest poll
	LastError           string    `json:"last_error,omitempty"` // of the newest fetch that failed, of any kind
	LastErrorAt         time.Time `json:"last_error_at,omitzero"`
	ConsecutiveFailures int       `json:"consecutive_failures"` // of whole fetches
	NextPoll            time.Time `json:"next_poll,omitzero"`

	StatesAt         time.Time  `json:"states_at,omitzero"` // when the states in use were read, by either kind of poll
	StatesAgeSeconds float64    `json:"states_age_seconds"`
	StateFailures    int        `json:"state_failures"`     // of polls of states, in a row
	NextFull         time.Time  `json:"next_full,omitzero"` // when a poll becomes a whole fetch
	Hints            HintStatus `json:"hints"`
	Overrides        int        `json:"overrides"` // states set here that no fetch has confirmed yet

	StoredAt   time.Time   `json:"stored_at,omitzero"`
	StoreError string      `json:"store_error,omitempty"`
	Held       *HeldStatus `json:"held,omitempty"`
}

// HintStatus tells what became of hints that a customer changed.
type HintStatus struct {
	Pending       int       `json:"pending"`   // customers that wait to be read again
	Received      uint64    `json:"received"`  // since the start
	Overflows     uint64    `json:"overflows"` // hints that a poll of all states stood in for
	LastAt        time.Time `json:"last_at,omitzero"`
	LastAppliedAt time.Time `json:"last_applied_at,omitzero"`
	LastSeconds   float64   `json:"last_seconds"` // from the hint to the snapshot, of the newest batch
	LastError     string    `json:"last_error,omitempty"`
	LastErrorAt   time.Time `json:"last_error_at,omitzero"`
}

// HeldStatus is a fetch that the guard holds. The snapshot in use before it
// stays in use.
type HeldStatus struct {
	Fingerprint string           `json:"fingerprint"` // hexadecimal
	FetchedAt   time.Time        `json:"fetched_at"`
	Since       time.Time        `json:"since"` // when this answer was first held
	Seen        int              `json:"seen"`  // how often this same answer came in a row
	AcceptAfter int              `json:"accept_after,omitempty"`
	Rejected    bool             `json:"rejected"` // an operator said no to this answer before
	Source      provision.Source `json:"source"`
	Kind        FetchKind        `json:"kind"`
	Counts      provision.Counts `json:"counts"`
	Decision    GuardDecision    `json:"decision"`
}

// GuardStatus is what "usher guard show" tells.
type GuardStatus struct {
	Limits GuardLimits `json:"limits"`
	Held   *HeldStatus `json:"held,omitempty"`
}
