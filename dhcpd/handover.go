package dhcpd

import (
	"errors"
	"os"
	"syscall"
	"time"

	"github.com/usher-agent/usher/dhcpd/socket"
	"github.com/usher-agent/usher/dhcpd/wire"
)

// maxWaited is how long a packet may have waited for this process to be answered. A client asks again after about
// 4 s (RFC 2131 section 4.1); an answer to its first question would meet a client that asks another one.
const maxWaited = 4 * time.Second

// TakeOver listens, as Listen does, on the socket that an earlier process has let somebody Keep. What waits in it is
// answered by Run in the order in which it came, and is outcome.Stale if it came too long ago. f stays the caller's to close. It is an error if
// f does not fit the options; then nothing is taken, and Listen may be tried.
func (s *Server) TakeOver(f *os.File) error {
	if s.socks.Load() != nil {
		return errors.New("dhcp: listens already")
	}
	socks, err := socket.TakeOver(s.generation.Load().listen, f)
	if err != nil {
		return err
	}
	s.tookOver = time.Now()
	s.socks.Store(socks)
	return nil
}

// Keep lets keep have the socket that packets come in on, to hold it when this process ends and give it to TakeOver
// of the next one. It is for after Listen.
func (s *Server) Keep(keep func(syscall.RawConn) error) error {
	socks := s.socks.Load()
	if socks == nil {
		return errors.New("dhcp: keep before listen")
	}
	return socks.Keep(keep)
}

// handover is what is known of packets that waited for this process. It ends with
// the first one that came later. The kernel's clock tells, not that of the server.
type handover struct {
	since        int64 // when the socket was taken over; 0: nothing waits any more
	waited, late int
}

// tooLate reports whether the packet at hand has waited too long for an answer. RELEASE and DECLINE want none, and are
// not sent again: they are as good as when they came.
func (h *handler) tooLate(came int64) bool {
	o := &h.over
	if came == 0 || came >= o.since {
		if o.waited > 0 {
			h.s.log.Info("packets that had waited for the agent to start are dealt with", "packets", o.waited, "too_late", o.late)
		}
		*o = handover{}
		return false
	}
	o.waited++
	if t := h.r.P.Type(); t == wire.Release || t == wire.Decline || time.Now().UnixNano()-came <= int64(maxWaited) {
		return false
	}
	o.late++
	return true
}
