// Package systemd holds the unit and the files around it that a package
// installs; its tests hold them against systemd's own tools.
//
//	usher.service   /usr/lib/systemd/system/usher.service
//	usher.sysusers  /usr/lib/sysusers.d/usher.conf
//	usher.tmpfiles  /usr/lib/tmpfiles.d/usher.conf
package systemd
