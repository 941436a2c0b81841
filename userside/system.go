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
// test of URL and key. It is the call by which the version is detected, so the
// first one serves for both.
func (c *Client) SystemInfo(ctx context.Context) (*SystemInfo, error) {
	r := systemReader{found: map[string]String{}}
	fresh := c.opts.ERPVersion.IsZero() && c.levels.get(time.Now()) == nil
	lv := c.level(ctx)
	if fresh && lv.info != nil {
		info := *lv.info
		return &info, nil
	}
	a, err := c.ask(ctx, actSystemInfo.row(), nil, r.sink())
	if err != nil {
		return nil, err
	}
	info := r.info(a, c.opts.Location)
	if info == nil {
		return nil, c.unknownShape(actSystemInfo, a, "none of the known members")
	}
	return info, nil
}
