package userside

import (
	"context"
	"time"
)

// SystemInfo is what system get_system_info says (API page section 5.5).
type SystemInfo struct {
	Version    String    // erp_version
	Time       time.Time // the server's clock, from date_time_unix; zero if not told
	DateTime   String    // the same as text, in the server's zone
	OS         String
	PHPVersion String
}

// SystemInfo calls system get_system_info: the version of the ERP, and a cheap
// test of URL and key.
func (c *Client) SystemInfo(ctx context.Context) (*SystemInfo, error) {
	found := map[string]String{}
	keys := []string{"erp_version", "date_time_unix", "date_time_string", "os", "php_version"}
	to := sink{
		reset: func() { clear(found) },
		whole: func(v value) {
			for _, k := range keys {
				if s, err := v.get(k).string(); err == nil && s != "" {
					found[k] = s
				}
			}
		},
	}
	a, err := c.call(ctx, actSystemInfo, nil, to)
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		if _, ok := found[k]; !ok {
			found[k] = a.scalar(k)
		}
	}
	info := &SystemInfo{Version: found["erp_version"], DateTime: found["date_time_string"], OS: found["os"], PHPVersion: found["php_version"]}
	if n, ok := parseInt([]byte(found["date_time_unix"])); ok && n > 0 {
		info.Time = time.Unix(n, 0).In(c.opts.Location)
	}
	if *info == (SystemInfo{}) {
		return nil, c.unknownShape(actSystemInfo, a, "none of the known members")
	}
	return info, nil
}
