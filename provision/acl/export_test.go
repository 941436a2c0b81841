package acl

import "github.com/mdlayher/netlink"

// ListenWith replaces the buffer for events, for a test of its overflow.
func (t *Table) ListenWith(netNS, buffer int) {
	t.listen = func() (*netlink.Conn, error) {
		c, err := listenKernel(netNS)
		if err == nil {
			err = c.SetReadBuffer(buffer)
		}
		return c, err
	}
}

// HasDevice reports whether there is an interface.
func (t *Table) HasDevice(name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.isThereLocked(name)
}
