package portal

import "github.com/usher-agent/usher/console/door"

// Connections is how many the portal wants to let in at once. It is less than its own
// bound, so that the door, which makes room for the next one, comes first.
const Connections = maxConns - maxPerSource

// Through has the listeners let in through d, which is the last bound beside those that the
// portal has for each source. Where it lets in fewer than Connections, those bounds shrink
// with it. It is called before Run.
func (s *Server) Through(d *door.Door) {
	s.door = d
	if total := d.Status().Total; total > 0 {
		s.sources.bounds = boundsOf(total * maxConns / Connections)
	}
}
