package agent

import (
	"errors"
	"slices"
	"syscall"

	"github.com/usher-agent/usher/dhcpd"
)

// dhcpSocket is the name by which the service manager keeps the socket that DHCP comes in on. Its packets wait in the
// kernel then while no agent runs, also after kill -9. Other versions read the name: it stays what it is.
const dhcpSocket = "dhcp"

// listen opens the sockets of DHCP, or takes over the one that an earlier agent left with the service manager. srv is
// nil where there is to be none. What was left and does not fit, or is not known here, is dropped: it
// would hold the port.
func (a *Agent) listen(srv *dhcpd.Server) error {
	took := false
	var drop []string
	for _, f := range a.service.Kept() {
		err := errors.New("nothing of that name is wanted")
		if f.Name() == dhcpSocket && srv != nil {
			err = errors.New("there is one already")
			if !took {
				err = srv.TakeOver(f)
			}
		}
		if err == nil {
			took = true
			a.log.Info("the socket of an earlier agent is taken over, with the packets that wait in it", "listen", srv.LocalAddr())
		} else {
			a.log.Warn("what the service manager kept of an earlier agent is not used", "name", f.Name(), "error", err)
			if !slices.Contains(drop, f.Name()) {
				drop = append(drop, f.Name())
			}
		}
		_ = f.Close() // a taken one has a descriptor of its own
	}
	for _, name := range drop {
		if err := a.service.Drop(name); err != nil {
			a.log.Warn("the service manager cannot be told to drop what it keeps", "name", name, "error", err)
		}
	}
	switch {
	case srv == nil:
		return nil
	case !took:
		if err := srv.Listen(); err != nil {
			return err
		}
	case !slices.Contains(drop, dhcpSocket):
		return nil // it has it still
	}
	err := srv.Keep(func(c syscall.RawConn) error { return a.service.Keep(dhcpSocket, c) })
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		a.log.Warn("the service manager does not keep the DHCP socket: packets are lost while the agent starts again", "error", err)
	}
	return nil
}
