"""Crontabs as ordinary users write them: each with the commands that its lines run, whole."""

from __future__ import annotations

#: Users of a machine, some of them called like commands.
USERS = frozenset({
    "root", "daemon", "bin", "games", "man", "lp", "mail", "news", "backup", "list", "www-data", "postgres", "git",
    "Debian-exim", "ann", "sync", "deploy",
})  # fmt: skip
PROGRAMS = frozenset({"mail", "man", "sync", "git", "postgres", "cd", "test", "php"})

#: User crontabs, as `crontab -l` shows them: name -> text, commands.
USER_SHAPES: dict[str, tuple[str, list[str]]] = {
    "laravel": (
        "* * * * * cd /srv/shop && php artisan schedule:run >> /dev/null 2>&1\n",
        ["cd /srv/shop && php artisan schedule:run >> /dev/null 2>&1"],
    ),
    "wordpress": (
        "*/5 * * * * cd /var/www/blog; wp cron event run --due-now\n",
        ["cd /var/www/blog; wp cron event run --due-now"],
    ),
    "wordpress by curl": (
        "*/15 * * * * curl -s https://example.com/wp-cron.php?doing_wp_cron > /dev/null 2>&1\n",
        ["curl -s https://example.com/wp-cron.php?doing_wp_cron > /dev/null 2>&1"],
    ),
    "wget of a hosting panel": (
        "0,30 * * * * wget -q -O - https://example.com/cron.php >/dev/null 2>&1\n",
        ["wget -q -O - https://example.com/cron.php >/dev/null 2>&1"],
    ),
    "cpanel php": (
        'MAILTO="ann@example.com"\nSHELL="/usr/local/cpanel/bin/jailshell"\n'
        "*/10\t*\t*\t*\t*\t/usr/local/bin/php -q /home/ann/public_html/cron.php\n",
        ["/usr/local/bin/php -q /home/ann/public_html/cron.php"],
    ),
    "drupal": (
        "0 * * * * drush --root=/srv/site core:cron\n",
        ["drush --root=/srv/site core:cron"],
    ),
    "nextcloud": ("*/5 * * * * php -f /var/www/nextcloud/cron.php\n", ["php -f /var/www/nextcloud/cron.php"]),
    "magento": (
        "#~ MAGENTO START abc\n* * * * * /usr/bin/php /srv/m/bin/magento cron:run 2>&1 | grep -v \"Ran jobs\" >> "
        "/srv/m/var/log/cron.log\n#~ MAGENTO END abc\n",
        ['/usr/bin/php /srv/m/bin/magento cron:run 2>&1 | grep -v "Ran jobs" >> /srv/m/var/log/cron.log'],
    ),
    "moodle": ("* * * * * nice php /srv/moodle/admin/cli/cron.php\n", ["nice php /srv/moodle/admin/cli/cron.php"]),
    "certbot": (
        "0 0,12 * * * sleep 30 && certbot renew -q --deploy-hook 'systemctl reload nginx'\n",
        ["sleep 30 && certbot renew -q --deploy-hook 'systemctl reload nginx'"],
    ),
    "acme.sh": (
        '12 3 * * * "/home/ann/.acme.sh"/acme.sh --cron --home "/home/ann/.acme.sh" > /dev/null\n',
        ['"/home/ann/.acme.sh"/acme.sh --cron --home "/home/ann/.acme.sh" > /dev/null'],
    ),
    "test before": ("*/5 * * * * test -x /usr/bin/x || /usr/bin/y\n", ["test -x /usr/bin/x || /usr/bin/y"]),
    "bracket before": ("0 4 * * * [ -f /tmp/go ] && run me\n", ["[ -f /tmp/go ] && run me"]),
    "source before": ("0 3 * * * source /etc/profile; backup\n", ["source /etc/profile; backup"]),
    "dot before": ("0 3 * * * . $HOME/.profile; bin/report\n", [". $HOME/.profile; bin/report"]),
    "virtualenv": (
        "30 6 * * 1-5 cd ~/app && ./venv/bin/python manage.py send_reports\n",
        ["cd ~/app && ./venv/bin/python manage.py send_reports"],
    ),
    "rbenv": (
        "0 0 * * * /bin/bash -l -c 'cd /srv/app && RAILS_ENV=production bundle exec rake sweep --silent'\n",
        ["/bin/bash -l -c 'cd /srv/app && RAILS_ENV=production bundle exec rake sweep --silent'"],
    ),
    "pg_dump by date": (
        r"0 2 * * * pg_dump -Fc shop > /backup/shop-$(date +\%F).dump" + "\n",
        ["pg_dump -Fc shop > /backup/shop-$(date +%F).dump"],
    ),
    "pg_dump with a password": (
        "0 2 * * * PGPASSWORD='s3cret word' pg_dump -h db shop | gzip > /backup/shop.gz\n",
        ["PGPASSWORD='s3cret word' pg_dump -h db shop | gzip > /backup/shop.gz"],
    ),
    "vacuum": ("0 5 * * 0 postgres --version; vacuumdb -a -z\n", ["postgres --version; vacuumdb -a -z"]),
    "mysqldump": (
        r"15 1 * * * mysqldump -u shop -ps3cret shop | gzip > ~/db-`date +\%a`.gz" + "\n",
        ["mysqldump -u shop -ps3cret shop | gzip > ~/db-`date +%a`.gz"],
    ),
    "rsync": (
        "30 23 * * * rsync -az --delete /srv/ backup@host:/srv/ 2>&1 | logger -t rsync\n",
        ["rsync -az --delete /srv/ backup@host:/srv/ 2>&1 | logger -t rsync"],
    ),
    "restic": (
        "RESTIC_REPOSITORY=/mnt/b\nRESTIC_PASSWORD_FILE=/home/ann/.pw\n0 3 * * * restic backup /home --quiet\n"
        "0 4 * * 0 restic forget --keep-daily 7 --prune\n",
        ["restic backup /home --quiet", "restic forget --keep-daily 7 --prune"],
    ),
    "borg": ("@daily borgmatic --verbosity -1 --syslog-verbosity 1\n", ["borgmatic --verbosity -1 --syslog-verbosity 1"]),
    "find": (
        r"0 1 * * * find /tmp/up -type f -mtime +7 -exec rm {} \;" + "\n",
        [r"find /tmp/up -type f -mtime +7 -exec rm {} \;"],
    ),
    "flock": (
        "* * * * * flock -n /tmp/q.lock /srv/q/run --once\n",
        ["flock -n /tmp/q.lock /srv/q/run --once"],
    ),
    "a user's name that is a command": ("0 8 * * * mail -s hello ann < /home/ann/text\n", ["mail -s hello ann < /home/ann/text"]),
    "git pull": ("*/10 * * * * git -C /srv/site pull -q\n", ["git -C /srv/site pull -q"]),
    "two lines of which one begins like a user": (
        "0 1 * * * backup /srv\n0 2 * * * /opt/report\n",
        ["backup /srv", "/opt/report"],
    ),
    "sync alone": ("0 * * * * sync\n", ["sync"]),
    "deploy with an option": ("0 1 * * * deploy --all\n", ["deploy --all"]),
    "mail with input": (
        "0 9 1 * * mail ann%Subject: rent%%Pay.\n",
        ["mail ann"],
    ),
    "uptime ping": (
        "*/5 * * * * curl -fsS -m 10 --retry 5 -o /dev/null https://hc.example.com/abc\n",
        ["curl -fsS -m 10 --retry 5 -o /dev/null https://hc.example.com/abc"],
    ),
    "names of days and months": ("0 9 * jan-jun mon,wed,FRI /opt/a\n0 9 * * 7 /opt/b\n", ["/opt/a", "/opt/b"]),
    "tabs and blanks": ("  0\t9  *\t* *   /opt/a  b\t c  \n", ["/opt/a  b\t c"]),
    "windows": ("MAILTO=\r\n0 9 * * * /opt/a\r\n\r\n0 10 * * * /opt/b\r\n", ["/opt/a", "/opt/b"]),
    "the default comment of crontab -e": (
        "# Edit this file to introduce tasks to be run by cron.\n#\n# m h  dom mon dow   command\n0 5 * * 1 tar -zcf "
        "/var/backups/home.tgz /home/\n",
        ["tar -zcf /var/backups/home.tgz /home/"],
    ),
    "a line without its last line feed": ("0 9 * * * /opt/a", ["/opt/a"]),
    "a comment behind": ("0 9 * * 1-5 /opt/a # weekdays\n", ["/opt/a # weekdays"]),
    "zones": (
        "CRON_TZ=Europe/Berlin\n0 9 * * * /opt/a\nCRON_TZ=Asia/Tokyo\n0 9 * * * /opt/b\n",
        ["/opt/a", "/opt/b"],
    ),
    "path with a variable": (
        "PATH=$HOME/bin:/usr/bin:/bin\nHOME=/srv/shop\n0 9 * * * report && ./more\n",
        ["report && ./more"],
    ),
    "flags of the BSDs": ("0 9 * * * -nq /opt/a\n*/5 * * * * -s /opt/b -v\n", ["/opt/a", "/opt/b -v"]),
    "python with quotes": (
        """0 9 * * * python3 -c 'print("a;b"); import x' && echo "it's"\n""",
        ["""python3 -c 'print("a;b"); import x' && echo "it's\""""],
    ),
    "names of FreeBSD": ("@every_minute /opt/a\n@yearly /opt/b\n@midnight /opt/c\n", ["/opt/a", "/opt/b", "/opt/c"]),
    "every": ("@every 5m /opt/a -x\n", ["/opt/a -x"]),
    "whenever": (
        "# Begin Whenever generated tasks for: shop\n0 0 * * * /bin/bash -l -c 'x >> log 2>&1'\n\n"
        "# End Whenever generated tasks for: shop\n",
        ["/bin/bash -l -c 'x >> log 2>&1'"],
    ),
    "ansible": ("#Ansible: check dirs\n0 5,17 * * * ls -alh > /dev/null\n", ["ls -alh > /dev/null"]),
    "docker": (
        "0 4 * * * docker compose -f /srv/c.yml exec -T web ./manage.py clearsessions\n",
        ["docker compose -f /srv/c.yml exec -T web ./manage.py clearsessions"],
    ),
    "no lines": ("# nothing\n\n", []),
    "empty": ("", []),
    "a no-break space and a line separator in a command": (
        "0 9 * * * echo 'a\u00a0b\u2028c\x0cd'\n",
        ["echo 'a\u00a0b\u2028c\x0cd'"],
    ),
}  # fmt: skip

#: Crontabs with users, as in /etc: name -> text, users and commands.
SYSTEM_SHAPES: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "Debian": (
        "SHELL=/bin/sh\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\n"
        "17 *\t* * *\troot\tcd / && run-parts --report /etc/cron.hourly\n"
        "25 6\t* * *\troot\ttest -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.daily; }\n",
        [
            ("root", "cd / && run-parts --report /etc/cron.hourly"),
            ("root", "test -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.daily; }"),
        ],
    ),
    "php": (
        "09,39 *     * * *     root   [ -x /usr/lib/php/sessionclean ] && /usr/lib/php/sessionclean\n",
        [("root", "[ -x /usr/lib/php/sessionclean ] && /usr/lib/php/sessionclean")],
    ),
    "FreeBSD": (
        "*/5\t*\t*\t*\t*\troot:wheel\t/usr/libexec/atrun\n0 0 * * * root/daemon -n newsyslog\n",
        [("root", "/usr/libexec/atrun"), ("root", "newsyslog")],
    ),
    "a program that is not here": ("0 1 * * * www-data drush cron\n", [("www-data", "drush cron")]),
    "several users": (
        "@daily www-data php /srv/a.php\n0 1 * * * Debian-exim /usr/bin/a\n0 2 * * * backup /opt/backup\n",
        [("www-data", "php /srv/a.php"), ("Debian-exim", "/usr/bin/a"), ("backup", "/opt/backup")],
    ),
}
