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
	Fallback    *Fallback        `json:"fallback,omitempty"` // why Source is not the preferred one

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

	Sources []SourceStatus `json:"sources"` // none where the Fetcher does not tell

	StoredAt        time.Time `json:"stored_at,omitzero"`
	StoreError      string    `json:"store_error,omitempty"`       // why the stored snapshot is none for a restart; until one is stored
	GuardStoreError string    `json:"guard_store_error,omitempty"` // why what the guard knows could not be stored
	// Unread is what could not be read of the two at the start: why, and where a damaged file is kept.
	Unread []string    `json:"unread,omitempty"`
	Held   *HeldStatus `json:"held,omitempty"`

	Unconfirmed *UnconfirmedOpenings `json:"unconfirmed_openings,omitempty"` // within the last hour
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

// HeldStatus is a fetch of which the guard holds something. The snapshot in use has the rest of it.
type HeldStatus struct {
	Fingerprint string           `json:"fingerprint"` // of what is held, hexadecimal
	FetchedAt   time.Time        `json:"fetched_at"`
	Since       time.Time        `json:"since"` // when this was first held
	Seen        int              `json:"seen"`  // how often the same was to be held in a row
	AcceptAfter int              `json:"accept_after,omitempty"`
	Rejected    bool             `json:"rejected"` // an operator said no to all of this before
	Source      provision.Source `json:"source"`
	Kind        FetchKind        `json:"kind"`
	Counts      provision.Counts `json:"counts"`
	Decision    GuardDecision    `json:"decision"`
	Openings    *OpeningStatus   `json:"openings,omitempty"` // where openings are held: what cards say of them
}

// OpeningStatus says what became of asking a few of those who are to be opened for their cards.
type OpeningStatus struct {
	Since        time.Time                `json:"since"`                  // when openings were first held
	CheckedAt    time.Time                `json:"checked_at,omitzero"`    // when cards were last asked for
	Asked        int                      `json:"asked"`                  // then
	Read         int                      `json:"read"`                   // of those
	Contradicted []provision.SubscriberID `json:"contradicted,omitempty"` // whose cards said that they are blocked
	Error        string                   `json:"error,omitempty"`        // why cards were not read
	OpensAt      time.Time                `json:"opens_at,omitzero"`      // if cards cannot be read until then
}

// UnconfirmedOpenings are openings above the limit that came into use because no card could be read.
type UnconfirmedOpenings struct {
	At    time.Time `json:"at"`
	Count int       `json:"count"`
	Error string    `json:"error"`
}

// GuardStatus is what "usher guard show" tells.
type GuardStatus struct {
	Limits  GuardLimits  `json:"limits"`
	Held    *HeldStatus  `json:"held,omitempty"`
	Changes []HeldChange `json:"changes,omitempty"` // that are held, all of them

	Rejected []HeldChange `json:"rejected,omitempty"` // that an operator rejected and the ERP did not take back since; their states are among Changes
}
