package syncer

import "time"

// Fallback is why bindings are not read from the source that is preferred.
type Fallback struct {
	Reason  string    `json:"reason"`            // what came of the preferred source
	Since   time.Time `json:"since"`             // whole fetch that was the first without it
	Fetches int       `json:"fetches"`           // whole fetches until one has tried it again; 1: the next does
	RetryAt time.Time `json:"retry_at,omitzero"` // about when that is; zero: not known
}

// FallbackTeller is a Fetcher that may have to do with another source.
type FallbackTeller interface {
	// Fallback returns nil while the preferred source is used. It may be called by any goroutine.
	Fallback() *Fallback
}

// fallbackLocked returns what the Fetcher says, with the time of the next try.
func (s *Syncer) fallbackLocked() *Fallback {
	teller, able := s.source.(FallbackTeller)
	if !able {
		return nil
	}
	f := teller.Fallback()
	if f == nil {
		return nil
	}
	out := *f
	if next := s.nextFullLocked(); !next.IsZero() {
		every := max(s.opts.RefreshInterval, s.opts.PollInterval)
		out.RetryAt = next.Add(time.Duration(out.Fetches-1) * every)
	}
	return &out
}
