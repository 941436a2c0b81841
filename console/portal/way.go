package portal

import (
	"context"
	"time"
)

// Way is what leads HTTP of those who are blocked here, in the kernel.
type Way interface {
	// PortalUp opens it for a time from now on.
	PortalUp(ctx context.Context, d time.Duration) error
	// PortalDown shuts it.
	PortalDown(ctx context.Context) error
}

const (
	// wayLife is how long the way outlives an agent that was killed: so long the kernel
	// leads HTTP to a port that any program may take.
	wayLife = 12 * time.Second
	// wayRenew leaves a late renewal time enough.
	wayRenew = 4 * time.Second
	// wayRetry is the wait after a failure.
	wayRetry = time.Second
	// wayShut is how long an end waits for the kernel; the way's time runs out anyway.
	wayShut = 500 * time.Millisecond
)

// Led has the way open whenever Listen is served, and shut as soon as it is not. It
// is called before Run.
func (s *Server) Led(by Way) { s.way = by }

// keepWay has the way open until ctx ends, and shuts it.
func (s *Server) keepWay(ctx context.Context) {
	if s.way == nil {
		return
	}
	failed := false
	for ctx.Err() == nil {
		wait := wayRenew
		err := s.way.PortalUp(ctx, wayLife)
		switch {
		case err == nil && failed:
			s.log.InfoContext(ctx, "HTTP is led to the portal again")
		case err != nil && ctx.Err() == nil && !failed:
			s.log.WarnContext(ctx, "HTTP of paused customers cannot be led to the portal, trying again", "error", err)
		}
		if failed = err != nil; failed {
			wait = wayRetry
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
	s.shutWay(context.WithoutCancel(ctx))
}

// shutWay waits no longer for it than the stop of an agent may take.
func (s *Server) shutWay(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, wayShut)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.way.PortalDown(ctx) }()
	select {
	case err := <-done:
		if err != nil {
			s.log.WarnContext(ctx, "HTTP is still led to the portal, for a short time", "error", err, "for", wayLife)
		}
	case <-ctx.Done():
		s.log.WarnContext(ctx, "HTTP is still led to the portal, for a short time", "error", ctx.Err(), "for", wayLife)
	}
}
