-- loses: organizations
drop table organizations;
