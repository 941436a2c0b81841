package config

import ()

import ()

// controlTogether checks the socket's path and group against the kernel and the host.
func (d *decoder) controlTogether(m mapping, c *Control) {
	// sun_path of unix(7) holds 108 bytes with the final zero.
	if len(c.Socket) > 107 {
		m.get("socket").problem("%d bytes; the kernel takes at most 107 for a socket's path", len(c.Socket))
	}
	if c.Group != "" && d.env.LookupGroup != nil {
		if err := d.env.LookupGroup(c.Group); err != nil {
			m.get("group").problem("no group %q on this host", excerpt(c.Group))
		}
	}
}
