# A host that people reach by SSH. It proves itself by the pinned key.
target "ssh" "web-1" {
  address  = "127.0.0.1:2222"
  host_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAII8xtrGsJ6SW+ZNc+3zqfuDXm99OYlU8PTPubRuLwwrL"
  labels   = { env = "prod" }

  role "shell" {
    longest  = "1h"
    accounts = ["deploy"]
    shell    = true
    exec     = true
  }
  role "files" {
    longest   = "8h"
    accounts  = ["deploy"]
    transfers = ["rsync", "scp"]
    read      = ["/"]
    write     = ["/tmp", "/etc/app"]
  }
  role "logs" {
    longest  = "8h"
    accounts = ["deploy"]
    commands = ["uptime", "journalctl --no-pager -u app **", "tail -n * /var/log/*"]
    read     = ["/var/log"]
  }
}

rule "settings" {
  on   = [ssh.web-1]
  hold = command.kind == "file" && command.writes && startswith(command.path, "/etc/")
  ask  = [team("acme/data-owners")]
  say  = "Settings of a production host are changed by two people."
}
