package config

import "github.com/usher-agent/usher/config/keys"

// controlTogether checks the socket's path and group against the kernel and the host.
func (l *loader) controlTogether(m keys.Mapping, c *Control) {
	// sun_path of unix(7) holds 108 bytes with the final zero.
	if len(c.Socket) > 107 {
		m.Get("socket").Problem("%d bytes; the kernel takes at most 107 for a socket's path", len(c.Socket))
	}
	if c.Group != "" && l.env.LookupGroup != nil {
		if err := l.env.LookupGroup(c.Group); err != nil {
			m.Get("group").Problem("no group %q on this host", keys.Excerpt(c.Group))
		}
	}
}
